package purge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Paces of what is done behind.
const (
	saveDelay  = 100 * time.Millisecond // the book is written at most so often
	retryDelay = time.Second            // a bus that failed is tried again
)

// apply takes one message of the stream. The bus calls it in order, from one
// goroutine.
func (l *Log) apply(seq uint64, data []byte) {
	l.mu.Lock()
	expected, low := l.next, l.book.Low
	lastReplayed, fresh := l.replayed, seq >= l.fresh
	want, before := l.book.epoch(seq), l.book.epoch(seq-1)
	l.mu.Unlock()
	if seq < expected {
		return
	}
	replayed := seq <= lastReplayed
	// What the sweep has passed is read for the history alone. What is new is
	// never behind it, even where its epoch seems so: that one was given to
	// something that is not in the stream, and swept, before this came.
	needed := want > low || !replayed
	if seq > expected && (before > low || seq-1 > lastReplayed) {
		l.o.Log.Error("purge: messages of the log are missing; everything older must be validated before use",
			"from", expected, "to", seq-1)
		before = l.o.Rules.applyAt(nil, time.Now(), before, seq-1 <= lastReplayed)
		l.stepped(seq-1, before, before)
	}
	rec, p, err := decode(data, l.o.Normal)
	now := time.Now()
	if err != nil {
		doubt := uint64(0)
		if needed {
			l.o.Log.Error("purge: a message of the log cannot be read; everything older must be validated before use",
				"position", seq, "error", err)
			want = l.o.Rules.applyAt(nil, now, want, replayed)
			doubt = want
		}
		l.stepped(seq, want, doubt)
		l.step(seq, nil, nil)
		return
	}
	// Soft purges count from when they were accepted, but a clock that was
	// set back must not bring that into the future.
	at := rec.At
	if at.After(now) {
		at = now
	}
	epoch := want
	if needed {
		epoch = l.o.Rules.applyAt(p, at, want, replayed)
	}
	l.stepped(seq, epoch, 0)
	receipt := Receipt{
		ID: rec.ID, Request: p.request, Epoch: epoch, Position: seq,
		AcceptedAt: rec.At, AppliedAt: time.Now().UTC(), Node: rec.Node,
	}
	if fresh && l.o.Applied != nil {
		l.o.Applied(receipt, p)
	}
	l.step(seq, &receipt, rec)
}

// stepped notes which epoch a place has got. Where it is not the one that the
// place had coming, that is durable before anyone is told of the purge: at the
// next start the place must have no earlier one.
func (l *Log) stepped(seq, epoch, doubt uint64) {
	l.mu.Lock()
	moved := epoch != l.book.epoch(seq) && epoch > l.book.Low
	if moved {
		l.book.begin(seq, epoch)
	}
	l.book.Applied = max(l.book.Applied, seq)
	l.book.Top = max(l.book.Top, epoch)
	l.book.Doubt = max(l.book.Doubt, doubt)
	l.mu.Unlock()
	if moved {
		_ = l.save() // Healthy tells
	}
}

// step makes the next place the one after seq, and tells who waits.
func (l *Log) step(seq uint64, receipt *Receipt, rec *record) {
	l.mu.Lock()
	l.next = seq + 1
	if receipt != nil {
		if request, err := digestOf(receipt.Request); err == nil {
			l.history.add(*receipt, rec.key(), request)
		}
		if c := l.waiting[receipt.ID]; c != nil {
			select {
			case c <- *receipt:
			default: // told already
			}
		}
	}
	close(l.moved)
	l.moved = make(chan struct{})
	l.mu.Unlock()
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// keepLocal makes an epoch durable that was given to something that is not in
// the stream, before it is used.
func (l *Log) keepLocal(epoch uint64, doubt bool) {
	l.mu.Lock()
	l.book.Top = max(l.book.Top, epoch)
	if doubt {
		l.book.Doubt = max(l.book.Doubt, epoch)
	}
	l.mu.Unlock()
	_ = l.save() // Healthy tells
}

// Swept says that nothing stored, and no fill under way, has an epoch before
// low, and that this will still be so after a crash. It is durable on return:
// the next start replays from there. The stream is trimmed to it, but for
// what Recent and idempotency keys need. It does not call Rules.Forget.
func (l *Log) Swept(low uint64) error {
	low = min(low, l.o.Rules.Epoch())
	l.mu.Lock()
	if low <= l.book.Low {
		unsaved := l.unsaved
		l.mu.Unlock()
		if unsaved != nil {
			return l.save() // of an earlier call, which failed
		}
		return nil
	}
	l.book.Low = low
	if l.book.Doubt <= low {
		l.book.Doubt = 0
	}
	l.history.expire(time.Now())
	keep := l.history.oldest(min(l.book.lowSeq()+1, l.next))
	l.book.prune(keep)
	b := l.bus
	l.mu.Unlock()
	if err := l.save(); err != nil {
		return err
	}
	if b == nil || keep <= 1 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), streamPatience)
	defer cancel()
	return b.trim(ctx, keep)
}

// save writes the book as it stands.
func (l *Log) save() error {
	if l.o.Dir == "" {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	b, before := l.book, l.unsaved
	b.Spans = slices.Clone(b.Spans)
	l.mu.Unlock()
	err := b.write(l.o.Dir)
	if err != nil && before == nil {
		l.o.Log.Error("purge: the log's state cannot be kept", "error", err)
	}
	l.mu.Lock()
	l.unsaved = err
	l.mu.Unlock()
	return err
}

// tend writes the book when it changed, and tries a bus again that failed: also
// one whose server stopped by itself, for which no purge may come soon.
func (l *Log) tend() {
	tick := time.NewTicker(retryDelay)
	defer tick.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-l.dirty:
		case <-tick.C:
			if l.Healthy() == nil {
				continue
			}
		}
		select {
		case <-l.done:
			return
		case <-time.After(saveDelay):
		}
		if l.save() != nil || l.revive() != nil {
			select {
			case <-l.done:
				return
			case <-time.After(retryDelay):
			}
			select {
			case l.dirty <- struct{}{}:
			default:
			}
		}
	}
}

func (l *Log) revive() error {
	ctx, cancel := context.WithTimeout(context.Background(), streamPatience)
	defer cancel()
	_, err := l.connected(ctx)
	return err
}

// failed returns what to tell of a message that was not taken, and notes that
// the bus is at fault, unless the caller just went away.
func (l *Log) failed(ctx context.Context, b bus, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("purge: write to the log: %w", ctx.Err())
	case l.bus != b || l.o.Dir == "":
		return err
	}
	l.broken = err
	l.o.Log.Error("purge: the log takes nothing", "error", err)
	select {
	case l.dirty <- struct{}{}:
	default:
	}
	return err
}

// connected returns the bus; a new one where the last failed, for after a full
// disk the server stays off until it is started again.
func (l *Log) connected(ctx context.Context) (bus, error) {
	l.connecting.Lock()
	defer l.connecting.Unlock()
	l.mu.Lock()
	b, broken, closed, retried := l.bus, l.broken, l.closed, l.retried
	l.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case broken == nil && b.alive():
		return b, nil
	case broken == nil:
		l.o.Log.Error("purge: the log's server has stopped, and is started again")
	case time.Since(retried) < retryDelay:
		return nil, broken
	}
	if b != nil {
		l.drop(b)
	}
	_, err := l.connect(ctx, false)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.retried = err, time.Now()
	return l.bus, err
}

// readBook reads what the last run left.
func (l *Log) readBook() error {
	if err := os.MkdirAll(l.o.Dir, 0o700); err != nil {
		return fmt.Errorf("purge: open the log: %w", err)
	}
	b, err := readBook(l.o.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errDamaged):
		aside, err := setAside(l.o.Dir, stateName, time.Now())
		if err != nil {
			return fmt.Errorf("purge: set the damaged state aside: %w", err)
		}
		l.o.Log.Error("purge: the log's state is damaged", "kept_as", aside)
		return nil
	case err != nil:
		return fmt.Errorf("purge: open the log: %w", err)
	}
	l.book = *b
	return nil
}

// connect makes a bus and follows it, at start or after a failure. It returns
// the last place that it holds now. The caller holds connecting.
func (l *Log) connect(ctx context.Context, start bool) (last uint64, err error) {
	b, err := l.openBus(ctx, start)
	if err != nil {
		return 0, err
	}
	s, err := b.state(ctx)
	if err != nil {
		b.close()
		return 0, err
	}
	l.mu.Lock()
	from := l.compare(s, start)
	l.bus, l.next = b, from
	top, doubt := l.book.Top, l.book.Doubt
	l.mu.Unlock()
	if err := l.save(); err != nil {
		l.drop(b)
		return 0, err
	}
	l.o.Rules.advance(top)
	if doubt > 0 {
		l.o.Rules.applyAt(nil, time.Now(), doubt, true)
	}
	if err := b.follow(from, l.apply); err != nil {
		l.drop(b)
		return 0, err
	}
	return s.last, nil
}

func (l *Log) drop(b bus) {
	b.close()
	l.mu.Lock()
	l.bus = nil
	l.mu.Unlock()
}

// openBus opens the stream. At start, one that cannot be read is set aside for
// a new one; a folder that cannot be written is an error, and no reason to.
func (l *Log) openBus(ctx context.Context, start bool) (bus, error) {
	if l.o.Dir == "" {
		return newMemory(), nil
	}
	b, err := openEmbedded(ctx, l.o.Dir, l.o.Log)
	if err == nil {
		return b, nil
	}
	if !start || ctx.Err() != nil {
		return nil, err
	}
	if probe := probe(l.o.Dir); probe != nil {
		return nil, fmt.Errorf("%w (%w)", probe, err)
	}
	aside, asideErr := setAside(l.o.Dir, streamFolder, time.Now())
	if asideErr != nil {
		return nil, errors.Join(err, asideErr)
	}
	l.o.Log.Error("purge: the log cannot be read, a new one begins", "error", err, "kept_as", aside)
	return openEmbedded(ctx, l.o.Dir, l.o.Log)
}

// probe reports whether a folder can be written to.
func probe(dir string) error {
	const name = "probe"
	if err := replaceFile(dir, name, make([]byte, 64<<10)); err != nil {
		return fmt.Errorf("purge: write to the log's folder: %w", err)
	}
	return os.Remove(filepath.Join(dir, name))
}

// compare holds the stream against the book, and returns the place to follow
// from. What does not fit puts everything older in doubt. The caller holds mu.
func (l *Log) compare(s busState, start bool) (from uint64) {
	b := &l.book
	switch {
	case l.o.Dir == "":
		b.Incarnation, b.Spans = s.incarnation, []span{{1, 1}}
	case b.Incarnation != s.incarnation:
		l.newStream(s)
	case s.last < b.Applied || s.lost:
		l.o.Log.Error("purge: the log has lost messages; everything older must be validated before use",
			"last", s.last, "applied", b.Applied)
		b.Doubt = b.leap(time.Now())
		b.Top = b.Doubt
		b.Applied = min(b.Applied, s.last)
		b.begin(s.last+1, b.Top+1)
	}
	expected := min(b.lowSeq(), b.Applied) + 1
	if !start {
		expected = min(l.next, b.Applied+1)
	}
	if missing := b.epoch(s.first - 1); s.first > expected && missing > b.Low && missing > b.Doubt {
		l.o.Log.Error("purge: the log begins too late; everything older must be validated before use",
			"first", s.first, "expected", expected)
		b.Doubt, b.Top = missing, max(b.Top, missing)
	}
	if !start {
		// All that comes is new to this run.
		l.replayed, l.fresh = 0, 0
		return max(expected, s.first)
	}
	l.replayed, l.fresh = b.Applied, s.last+1
	return s.first
}

// newStream begins the epochs of a stream that the book does not know, above
// all that were given. What is stored elsewhere may be older than the stream,
// even where the folder is new.
func (l *Log) newStream(s busState) {
	b := &l.book
	if b.Incarnation != "" || s.last > 0 {
		l.o.Log.Error("purge: the log is not the one of before; everything older must be validated before use",
			"messages", s.last)
	}
	top := b.leap(time.Now())
	*b = book{Incarnation: s.incarnation, Spans: []span{{1, top + 1}}, Low: b.Low, Doubt: top, Top: top}
}
