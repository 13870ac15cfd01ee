package purge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// state.json says which epochs the places of the stream have, and what was
// applied. It is written whole, beside the old one, and renamed: a crash
// leaves either.

const stateName = "state.json"

// span gives epochs to a run of places: the place from has epoch, the next one
// the next, until the next span.
type span struct {
	From  uint64 `json:"from"`
	Epoch uint64 `json:"epoch"`
}

// book is what must outlive the process beside the stream.
type book struct {
	// Incarnation is the stream that Spans and Applied are of.
	Incarnation string `json:"incarnation"`
	Spans       []span `json:"spans"`
	// Applied is the last place that was applied, or a little before it.
	Applied uint64 `json:"applied"`
	// Low is the sweep's mark: nothing stored has an earlier epoch.
	Low uint64 `json:"low"`
	// Doubt is the latest epoch before which purges may have been missed.
	Doubt uint64 `json:"doubt"`
	// Top is the latest epoch known to have been given.
	Top uint64 `json:"top"`
}

// epoch returns the epoch of a place.
func (b *book) epoch(seq uint64) uint64 {
	i := sort.Search(len(b.Spans), func(i int) bool { return b.Spans[i].From > seq })
	if i == 0 {
		return 0
	}
	s := b.Spans[i-1]
	return s.Epoch + seq - s.From
}

// begin makes the epochs from a place on start at epoch, which is later than
// all before.
func (b *book) begin(from, epoch uint64) {
	for len(b.Spans) > 0 && b.Spans[len(b.Spans)-1].From >= from {
		b.Spans = b.Spans[:len(b.Spans)-1]
	}
	b.Spans = append(b.Spans, span{from, epoch})
}

// lowSeq returns the last place whose epoch is at most Low, 0 for none.
func (b *book) lowSeq() uint64 {
	for i := len(b.Spans) - 1; i >= 0; i-- {
		s := b.Spans[i]
		if s.Epoch > b.Low {
			continue
		}
		seq := s.From + b.Low - s.Epoch
		if i+1 < len(b.Spans) {
			seq = min(seq, b.Spans[i+1].From-1)
		}
		return seq
	}
	if len(b.Spans) > 0 {
		return b.Spans[0].From - 1
	}
	return 0
}

// prune drops the spans that end before a place.
func (b *book) prune(before uint64) {
	for len(b.Spans) > 1 && b.Spans[1].From <= before {
		b.Spans = b.Spans[1:]
	}
}

// leap returns an epoch later than any that can have been given, where that
// is not known exactly: epochs are counted, and nobody purges a million times
// a second. The wall clock counts where nothing else is left to go by.
func (b *book) leap(now time.Time) uint64 {
	return max(b.Top+1<<20, uint64(max(now.UnixMicro(), 0)))
}

var errDamaged = errors.New("purge: state.json is damaged")

// readBook returns what was written last: fs.ErrNotExist where nothing was,
// errDamaged where it cannot be read.
func readBook(dir string) (*book, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateName))
	if err != nil {
		return nil, err
	}
	sum, text, _ := bytes.Cut(data, []byte{'\n'})
	b := &book{}
	if string(sum) != checksum(text) || json.Unmarshal(text, b) != nil {
		return nil, errDamaged
	}
	return b, nil
}

func checksum(text []byte) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) }

// write makes b durable.
func (b *book) write(dir string) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("purge: write state: %w", err)
	}
	if err := replaceFile(dir, stateName, append([]byte(checksum(text)+"\n"), text...)); err != nil {
		return fmt.Errorf("purge: write state: %w", err)
	}
	return nil
}

// replaceFile writes a file that a crash leaves whole: the old or the new one.
func replaceFile(dir, name string, data []byte) (err error) {
	temporary := filepath.Join(dir, name+".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// asideKept bounds the damaged files and folders that are kept for a look.
const asideKept = 8

// setAside renames a damaged file or folder, so that a new one can be made.
func setAside(dir, name string, now time.Time) (string, error) {
	old, err := filepath.Glob(filepath.Join(dir, name+".damaged-*"))
	if err != nil {
		return "", err
	}
	sort.Strings(old)
	for len(old) >= asideKept {
		if err := os.RemoveAll(old[0]); err != nil {
			return "", err
		}
		old = old[1:]
	}
	aside := fmt.Sprintf("%s.damaged-%020d", name, now.UnixNano())
	err = os.Rename(filepath.Join(dir, name), filepath.Join(dir, aside))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return aside, err
}
