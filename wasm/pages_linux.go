package wasm

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// Restoring a large memory by copying costs as much as the rest of a hit many
// times over (2.3 MiB: 50 to 120 µs), and a guest writes few of its pages. So
// machines' memories are private mappings of one file that has the snapshot:
// the kernel copies a page when it is first written, and tells of each page
// whether it still is the file's. Only those that are not are copied back.
// They stay the machine's own, so that in the long run no request causes a
// page fault.
//
// Asking for each page costs 5 to 7 µs for 2.3 MiB. A page can only cease to be
// the file's by a fault, and the kernel counts a process's faults: while the
// number is what it was before the last asking, the answer is, too. That
// question costs less than 1 µs, whatever the size.

// trackedSnapshot is the size from which this is cheaper than copying all. For
// 64 KiB the two cost the same, and more where faults are many.
const trackedSnapshot = 128 << 10

// Bits of an entry of /proc/self/pagemap (Linux, admin-guide/mm/pagemap.rst).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61
	pageEntry   = 8 // bytes
)

// pagemap tells which pages of private mappings were written.
type pagemap struct{ file *os.File }

// openPagemap returns nil where the kernel does not tell, which is tried.
func openPagemap() *pagemap {
	file, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil
	}
	p := &pagemap{file}
	if !p.tells() {
		p.close()
		return nil
	}
	return p
}

func (p *pagemap) close() {
	if p != nil {
		_ = p.file.Close() // it was read only
	}
}

// tells tries a mapping whose first page is read, the second written, and the
// third left alone.
func (p *pagemap) tells() bool {
	size := os.Getpagesize()
	i := newImage(p, make([]byte, 3*size))
	defer i.close()
	if i == nil {
		return false
	}
	space, err := unix.Mmap(-1, 0, 3*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false
	}
	l := &linear{space: space, size: uint64(len(space))}
	defer l.Free()
	t, err := i.attach(l)
	if err != nil {
		return false
	}
	before, ok := faults()
	space[size] = 1 + space[0]
	after, ok2 := faults()
	return ok && ok2 && after != before && t.read() && !t.written(0) && t.written(1) && !t.written(2)
}

// faults returns how many page faults of this process the kernel has handled,
// of all its threads, those that have ended too. It never becomes less, but for
// processors of 32 bits, where it begins anew after 2³²: only whether it is the
// same says anything.
func faults() (int64, bool) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return int64(u.Minflt) + int64(u.Majflt), err == nil
}

// image is a file in memory that has a snapshot.
type image struct {
	pages  *pagemap
	fd     int
	size   int
	broken atomic.Bool // mapping it has failed
}

// newImage returns nil when there can be none.
func newImage(p *pagemap, snapshot []byte) *image {
	if p == nil || len(snapshot) == 0 || len(snapshot)%os.Getpagesize() != 0 {
		return nil
	}
	fd, err := unix.MemfdCreate("seawall-snapshot", unix.MFD_CLOEXEC)
	if err != nil {
		return nil
	}
	i := &image{pages: p, fd: fd, size: len(snapshot)}
	for at := 0; at < len(snapshot); {
		n, err := unix.Pwrite(fd, snapshot[at:], int64(at))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			i.close()
			return nil
		}
		at += n
	}
	return i
}

func (i *image) close() {
	if i != nil {
		_ = unix.Close(i.fd) // mappings keep what they need
	}
}

// attach makes a memory the image's: its contents are those of the snapshot
// then. No tracker and no error: nothing was done. After an error the memory
// must not be used.
func (i *image) attach(memory experimental.LinearMemory) (*tracker, error) {
	l, ok := memory.(*linear)
	if i == nil || i.broken.Load() || !ok || l.space == nil || l.size != uint64(i.size) {
		return nil, nil
	}
	start := unsafe.Pointer(unsafe.SliceData(l.space))
	_, err := unix.MmapPtr(i.fd, 0, start, uintptr(i.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		i.broken.Store(true)
		return nil, err
	}
	size := os.Getpagesize()
	return &tracker{pages: i.pages, size: size, at: int64(uintptr(start)) / int64(size) * pageEntry, entries: make([]byte, i.size/size*pageEntry)}, nil
}

// tracker finds what was written of one memory.
type tracker struct {
	pages   *pagemap
	size    int   // of a page
	at      int64 // where its entries begin
	entries []byte

	known  bool      // what follows is
	faults int64     // of the process, before the last look
	own    []stretch // of the memory, as of the last look: what was written
}

// stretch is a part of a memory, in bytes.
type stretch struct{ from, to int }

func (t *tracker) read() bool {
	n, err := t.pages.file.ReadAt(t.entries, t.at)
	return err == nil && n == len(t.entries)
}

// written tells of a page, as of the last read.
func (t *tracker) written(page int) bool {
	e := binary.NativeEndian.Uint64(t.entries[page*pageEntry:])
	return e&(pagePresent|pageSwapped) != 0 && e&pageOfFile == 0
}

// look brings own up to date; false when nobody can tell. Faults are counted
// before the pages are read: one between the two is found now and looked for
// again the next time.
func (t *tracker) look() bool {
	now, ok := faults()
	if ok && t.known && now == t.faults {
		return true
	}
	t.known = false
	if !t.read() {
		return false
	}
	t.own = t.own[:0]
	for page := range len(t.entries) / pageEntry {
		if !t.written(page) {
			continue
		}
		at := page * t.size
		if n := len(t.own); n > 0 && t.own[n-1].to == at {
			t.own[n-1].to = at + t.size
		} else {
			t.own = append(t.own, stretch{at, at + t.size})
		}
	}
	t.known, t.faults = ok, now
	return true
}

// restore copies the pages back that were written; false when it cannot tell
// which.
func (t *tracker) restore(memory, snapshot []byte) bool {
	if t == nil || len(memory) != len(t.entries)/pageEntry*t.size || !t.look() {
		return false
	}
	for _, s := range t.own {
		copy(memory[s.from:s.to], snapshot[s.from:])
	}
	return true
}
