package store

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// blockSize is the unit in which a body is kept, read and given up.
	blockSize = 64 << 10
	// firstBlock is the first block of a body of unknown length; it grows
	// fourfold to blockSize, so that small bodies need no large block.
	firstBlock = 4 << 10
	// windowSize is how much of a body that is not to be stored is held for
	// its readers.
	windowSize = 8 << 20
	// narrowWindow is the window when the memory budget is used up by fills.
	narrowWindow = 2 * blockSize
)

var (
	// ErrStalled ends a reader that held up all others of a windowed body.
	ErrStalled = errors.New("store: reader stalled")
	// ErrGone ends a reader whose bytes are no longer held.
	ErrGone = errors.New("store: bytes no longer held")
	// errAbandoned ends a fill that nobody reads and that will not be stored.
	errAbandoned = errors.New("store: nobody reads")
)

// Body is the content of a response in blocks of 64 KiB; one of known length
// up to that is a single exact slice. A fill appends to it while readers
// follow, each at its own pace. Once settled it never changes and is read
// without a lock.
type Body struct {
	// settled is set after the last change: everything below is then fixed.
	settled atomic.Bool
	mu      sync.Mutex
	blocks  [][]byte // those given up in window mode are nil
	have    int64    // bytes appended so far
	size    int64    // declared length, -1 when unknown
	err     error    // why it ended short; nil when complete
	window  int64    // bytes held behind the slowest reader; 0 = all are kept
	first   int64    // offset of the first byte still held
	readers map[*Reader]struct{}
	pending int              // users of the fill that have yet to take their reader
	grown   chan struct{}    // closed when bytes arrive; nil when nobody waits
	room    chan struct{}    // closed when a reader moves on; nil unless the fill waits
	charge  func(int64) bool // takes bytes from the budget; only the fill uses these three
	paid    int64            // bytes held that it took
	broke   bool             // it refused: nothing more is charged
	orphan  func()           // gives back what is charged for readers left behind
	trailer any
	left    bool           // the store let go of it
	stalled *atomic.Uint64 // counts readers that were cut
}

// NewBody returns a settled body of these bytes, which it keeps.
func NewBody(p []byte) *Body {
	b := &Body{have: int64(len(p)), size: int64(len(p))}
	for len(p) > blockSize {
		b.blocks = append(b.blocks, p[:blockSize:blockSize])
		p = p[blockSize:]
	}
	if len(p) > 0 {
		b.blocks = append(b.blocks, p)
	}
	b.settled.Store(true)
	return b
}

// SetTrailer sets what comes behind a body that nobody else has yet.
func (b *Body) SetTrailer(trailer any) { b.trailer = trailer }

// newGrowing returns an empty body of a declared size, -1 when unknown.
// charge is asked for each block's bytes and given them back with a negative
// number; nil charges nothing.
func newGrowing(size int64, charge func(int64) bool) *Body {
	return &Body{size: size, charge: charge, readers: map[*Reader]struct{}{}}
}

// Size returns the body's length, or -1 while it is not known. That of a body
// that broke off is what was declared: what came of it is not its length.
func (b *Body) Size() int64 {
	if b.settled.Load() {
		return b.size
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// Have returns how many bytes have arrived.
func (b *Body) Have() int64 {
	if b.settled.Load() {
		return b.have
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.have
}

// Complete reports whether the whole body is here.
func (b *Body) Complete() bool { return b.settled.Load() && b.err == nil }

// Whole returns the content when it is one settled slice; the caller must not
// change it.
func (b *Body) Whole() ([]byte, bool) {
	if !b.settled.Load() || b.err != nil || b.first != 0 {
		return nil, false
	}
	switch len(b.blocks) {
	case 0:
		return nil, true
	case 1:
		return b.blocks[0], true
	}
	return nil, false
}

// Trailer returns what the fill set with SetTrailer, nil before the end.
func (b *Body) Trailer() any {
	if !b.settled.Load() {
		return nil
	}
	return b.trailer
}

// held returns the bytes of memory that the blocks take.
func (b *Body) held() int64 {
	var n int64
	for _, block := range b.blocks {
		n += int64(cap(block))
	}
	return n
}

// space returns room for the next bytes. In window mode it waits for the
// slowest reader, and cuts one that has not moved for stall.
func (b *Body) space(ctx context.Context, stall time.Duration) ([]byte, error) {
	var held stuck
	for {
		b.mu.Lock()
		slowest, off, any := b.slowestLocked()
		if b.window > 0 && !any {
			b.mu.Unlock()
			return nil, errAbandoned
		}
		var freed int64
		if b.window > 0 {
			freed = b.giveUpLocked(off)
		}
		fits := b.window == 0 || b.have-off < b.window
		room := make(chan struct{})
		if !fits {
			b.room = room
		}
		b.mu.Unlock()
		b.uncharge(freed)
		if fits {
			return b.tail(), nil
		}
		held.by(slowest, off)
		if err := b.awaitRoom(ctx, room, held, stall); err != nil {
			return nil, err
		}
	}
}

// stuck is who holds up a fill, where, and since when. Others that move
// meanwhile do not give it more time.
type stuck struct {
	reader *Reader
	off    int64
	since  time.Time
}

func (s *stuck) by(r *Reader, off int64) {
	if r == nil || s.since.IsZero() || s.reader != r || s.off != off {
		*s = stuck{r, off, time.Now()}
	}
}

// awaitRoom waits until a reader moved. slowest is nil while a user of the
// fill has yet to take its reader, which it does without waiting for anyone.
func (b *Body) awaitRoom(ctx context.Context, room chan struct{}, held stuck, stall time.Duration) error {
	timer := time.NewTimer(time.Until(held.since.Add(stall)))
	defer timer.Stop()
	select {
	case <-room:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		b.cutOff(held.reader, held.off)
	}
	return nil
}

// cutOff cuts a reader that is still where it was.
func (b *Body) cutOff(r *Reader, off int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, here := b.readers[r]; !here || r.off != off {
		return
	}
	r.cut = true
	delete(b.readers, r)
	if b.stalled != nil {
		b.stalled.Add(1)
	}
	if r.onCut != nil {
		r.onCut()
	}
}

// slowestLocked returns the reader that is furthest behind and its offset;
// no reader at offset 0 while some user has yet to take one.
func (b *Body) slowestLocked() (slowest *Reader, off int64, any bool) {
	if b.pending > 0 {
		return nil, 0, true
	}
	for r := range b.readers {
		if slowest == nil || r.off < slowest.off {
			slowest = r
		}
	}
	if slowest == nil {
		return nil, 0, false
	}
	return slowest, slowest.off, true
}

// giveUpLocked lets go of the blocks that end before off and returns their
// bytes.
func (b *Body) giveUpLocked(off int64) (freed int64) {
	for b.first+blockSize <= off && b.first+blockSize <= b.have {
		i := b.first / blockSize
		freed += int64(cap(b.blocks[i]))
		b.blocks[i] = nil
		b.first += blockSize
	}
	return freed
}

// tail returns the free part of the last block, making it when needed. Only
// the fill calls it, so the body cannot grow while the lock is given up to
// charge the budget (charging may evict, which takes other locks).
func (b *Body) tail() []byte {
	b.mu.Lock()
	i := int(b.have / blockSize)
	used := int(b.have % blockSize)
	var last []byte
	if i < len(b.blocks) {
		last = b.blocks[i]
	}
	if used < len(last) {
		b.mu.Unlock()
		return last[used:]
	}
	n := b.blockLenLocked(len(last))
	b.mu.Unlock()

	charged := b.charged(int64(n - len(last)))
	block := make([]byte, n)

	b.mu.Lock()
	defer b.mu.Unlock()
	if !charged {
		b.window = narrowWindow
	}
	if i == len(b.blocks) {
		b.blocks = append(b.blocks, block)
	} else {
		// Readers may hold slices of the smaller block: its bytes stay as
		// they are, only the body moves on to the larger copy.
		copy(block, last)
		b.blocks[i] = block
	}
	return block[used:]
}

// blockLenLocked returns the length of the next block, given that of the one
// it replaces.
func (b *Body) blockLenLocked(full int) int {
	if b.size >= 0 {
		return int(min(blockSize, max(1, b.size-b.have)))
	}
	if full > 0 {
		return min(4*full, blockSize)
	}
	if b.have == 0 {
		return firstBlock
	}
	return blockSize
}

// charged takes n bytes from the budget. When fills alone have used it up it
// returns false: the body then goes on through a narrow window, uncharged.
func (b *Body) charged(n int64) bool {
	if b.charge == nil {
		return true
	}
	if b.broke || !b.charge(n) {
		b.broke = true
		return false
	}
	b.paid += n
	return true
}

// uncharge gives back what was paid for the oldest n bytes held: those that
// were not paid for are the newest.
func (b *Body) uncharge(n int64) {
	if n = min(n, b.paid); n > 0 {
		b.paid -= n
		b.charge(-n)
	}
}

// narrow turns the body to window mode.
func (b *Body) narrow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.window == 0 {
		b.window = windowSize
	}
}

// Passing reports whether the body is not kept whole: its bytes are given up
// when all its readers have them. It stays so when the last has come.
func (b *Body) Passing() bool {
	if b.settled.Load() {
		return b.window > 0
	}
	return b.windowed()
}

// windowed reports whether the body is not kept whole.
func (b *Body) windowed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.window > 0
}

// join counts one user more who has yet to take its reader; false when a new
// reader would not find the first byte.
func (b *Body) join() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first != 0 || b.err != nil {
		return false
	}
	b.pending++
	return true
}

// commit publishes n bytes written to the space given last.
func (b *Body) commit(n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.have += int64(n)
	b.wakeLocked()
	b.mu.Unlock()
}

// commitLast is commit for bytes behind which none come: it is left to wake to
// tell of them.
func (b *Body) commitLast(n int) {
	b.mu.Lock()
	b.have += int64(n)
	b.mu.Unlock()
}

// wake lets readers look at what there is.
func (b *Body) wake() {
	b.mu.Lock()
	b.wakeLocked()
	b.mu.Unlock()
}

func (b *Body) wakeLocked() {
	if b.grown != nil {
		close(b.grown)
		b.grown = nil
	}
}

// finish is settle and wake.
func (b *Body) finish(err error, trailer any) error {
	defer b.wake()
	return b.settle(err, trailer)
}

// settle ends the body: complete when err is nil and as many bytes came as
// were declared, else broken. It returns why it is broken.
func (b *Body) settle(err error, trailer any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.settled.Load() {
		return b.err
	}
	if err == nil && b.size >= 0 && b.have != b.size {
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	if err == nil {
		b.size = b.have
		b.trailer = trailer
		b.trimLocked()
	}
	b.charge = nil // it holds the fill, and with it all that the fetch needed
	b.settled.Store(true)
	return err
}

// trimLocked makes the last block exact, so that a short body does not hold a
// long block.
func (b *Body) trimLocked() {
	n := len(b.blocks)
	if n == 0 {
		return
	}
	used := int(b.have - int64(n-1)*blockSize)
	last := b.blocks[n-1]
	if used == 0 {
		b.blocks = b.blocks[:n-1]
		return
	}
	if used == len(last) {
		return
	}
	exact := make([]byte, used)
	copy(exact, last)
	b.blocks[n-1] = exact
}

// Reader returns a reader of length bytes from off, or to the end when length
// is negative. It must be closed.
func (b *Body) Reader(off, length int64) *Reader {
	r := b.newReader(off, length)
	if b.settled.Load() && len(b.blocks) <= 1 {
		return r // it pins little
	}
	b.mu.Lock()
	b.addLocked(r)
	b.mu.Unlock()
	return r
}

func (b *Body) newReader(off, length int64) *Reader {
	r := &Reader{body: b, off: off, end: -1}
	if length >= 0 {
		r.end = off + length
	}
	return r
}

func (b *Body) addLocked(r *Reader) {
	if b.readers == nil {
		b.readers = map[*Reader]struct{}{}
	}
	b.readers[r] = struct{}{}
	r.listed = true
}

// promised takes one pending user from the count, adding the reader it takes,
// if any.
func (b *Body) promised(r *Reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending--
	if r != nil {
		b.addLocked(r)
	}
	b.roomLocked()
}

func (b *Body) roomLocked() {
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
}

// Reader reads a body, also one that still grows. It belongs to one goroutine.
type Reader struct {
	body   *Body
	off    int64 // next byte to give; guarded by body.mu until the body is settled
	end    int64 // where to stop, -1 for the body's end
	gave   int64 // bytes given by the last Next, held until the next call
	cut    bool  // guarded by body.mu
	listed bool  // it is in body.readers

	// dropped is set when the store let go of the body and there is no memory
	// for those who still read it.
	dropped atomic.Bool

	onCut func() // guarded by body.mu; nil: nobody asked
}

// OnCut has f called once when the reader is cut because it held up the others,
// so that a write it is stuck in can be ended. f must not block. One that was
// cut before learns it from Next.
func (r *Reader) OnCut(f func()) {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	r.onCut = f
}

// Next returns the next bytes, up to a block, waiting for them while the body
// grows; io.EOF at the end. They belong to the body: the caller must not
// change them and must be done with them before it calls Next again. A body
// that broke gives the bytes it has, then its error.
func (r *Reader) Next(ctx context.Context) ([]byte, error) {
	b := r.body
	for {
		if b.settled.Load() {
			if r.dropped.Load() {
				return nil, ErrStalled
			}
			r.off += r.gave
			r.gave = 0
			return r.take(b.have, b.err)
		}
		b.mu.Lock()
		r.moveLocked()
		if b.settled.Load() {
			b.mu.Unlock()
			continue
		}
		if r.cut {
			b.mu.Unlock()
			return nil, ErrStalled
		}
		if b.have > r.off || r.end >= 0 && r.off >= r.end {
			p, err := r.take(b.have, nil)
			b.mu.Unlock()
			return p, err
		}
		if b.grown == nil {
			b.grown = make(chan struct{})
		}
		grown := b.grown
		b.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// moveLocked counts the bytes given before as read, and wakes a fill that
// waits for room.
func (r *Reader) moveLocked() {
	if r.gave == 0 {
		return
	}
	r.off += r.gave
	r.gave = 0
	r.body.roomLocked()
}

// take gives what is here of the block at r.off.
func (r *Reader) take(have int64, err error) ([]byte, error) {
	p, err := r.at(r.off, have, err)
	r.gave = int64(len(p))
	return p, err
}

// at returns what is here of the block at off, at least a byte, or why there is
// nothing: the body ends, broke with err, or gave the block up.
func (r *Reader) at(off, have int64, err error) ([]byte, error) {
	end := have
	if r.end >= 0 && r.end < end {
		end = r.end
	}
	if off >= end {
		if err != nil && (r.end < 0 || off < r.end) {
			return nil, err
		}
		return nil, io.EOF
	}
	block := r.body.blocks[off/blockSize]
	if block == nil {
		return nil, ErrGone
	}
	from := off % blockSize
	return block[from:min(int64(len(block)), end-off+from)], nil
}

// NextBlocks is Next for a writer that takes several slices at once: it fills
// into, of which it uses the capacity, with what Next would give in turn and
// returns it, at least one slice unless there is an error. They are one while
// the body grows: a reader holds up those behind it by no more than a block.
// A settled body is held whole by any reader, so several hold nothing more.
func (r *Reader) NextBlocks(ctx context.Context, into [][]byte) ([][]byte, error) {
	p, err := r.Next(ctx)
	if err != nil {
		return nil, err
	}
	into = append(into[:0], p)
	if b := r.body; b.settled.Load() {
		for len(into) < cap(into) {
			p, err := r.at(r.off+r.gave, b.have, b.err)
			if err != nil {
				break // Next will say it
			}
			into = append(into, p)
			r.gave += int64(len(p))
		}
	}
	return into, nil
}

// Waiting reports whether the next Next would wait for bytes to arrive, so
// that what was written before should be flushed now.
func (r *Reader) Waiting() bool {
	b := r.body
	if b.settled.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.settled.Load() && b.have <= r.off+r.gave && (r.end < 0 || r.off+r.gave < r.end)
}

// Close lets go of the body.
func (r *Reader) Close() {
	b := r.body
	if !r.listed {
		return
	}
	r.listed = false
	b.mu.Lock()
	delete(b.readers, r)
	b.roomLocked()
	var free func()
	if len(b.readers) == 0 {
		free, b.orphan = b.orphan, nil
	}
	b.mu.Unlock()
	if free != nil {
		free()
	}
}

// leave is called when the store lets go of a settled body. While readers are
// left its bytes are charged, and freed when the last of them closes; if they
// cannot be charged, its readers are cut at their next block.
func (b *Body) leave(charge func(int64) bool) {
	if len(b.blocks) <= 1 {
		return
	}
	n := b.held()
	b.mu.Lock()
	busy := len(b.readers) > 0 && !b.left
	b.left = true
	b.mu.Unlock()
	if !busy {
		return
	}
	if !charge(n) {
		b.drop()
		return
	}
	b.mu.Lock()
	busy = len(b.readers) > 0
	if busy {
		b.orphan = func() { charge(-n) }
	}
	b.mu.Unlock()
	if !busy {
		charge(-n)
	}
}

// drop cuts those who read the body now.
func (b *Body) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.readers {
		r.dropped.Store(true)
		if b.stalled != nil {
			b.stalled.Add(1)
		}
		if r.onCut != nil {
			r.onCut()
		}
	}
}
