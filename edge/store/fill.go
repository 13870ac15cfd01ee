package store

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

var (
	errClosed = errors.New("store: closed")
	// ErrPanic ends a fill whose leader broke down.
	ErrPanic = errors.New("store: fill ended by a panic")
)

// Role is a request's part in a fill.
type Role uint8

const (
	// Again means that the store changed since the look-up: look again.
	Again Role = iota
	// Lead means that the caller must run the fill it was given.
	Lead
	// Follow means that the fill is run by another.
	Follow
	// Alone means that there is nothing to join, and nothing may be led.
	Alone
)

// Fill is one fetch that several requests may wait for. Its leader first ends
// the wait with Resolve, Settle, Refuse or Fail; after Resolve it pumps the
// body. Exactly one goroutine runs a fill.
type Fill[M any] struct {
	*Claim[M]
	store    *Store[M]
	names    []string // the Vary names by which selector was made
	selector string
	subject  any // of the leader's request
	behind   bool

	// Note is the leader's, set before Ready for those who wait to read.
	Note any

	ctx    context.Context
	cancel context.CancelCauseFunc // guarded by entry.mu where Refuse may run

	ready chan struct{} // closed when the fields below are set
	// object is what was fetched, nil when err or refused is set.
	object  *Object[M]
	refused bool
	err     error
	keep    atomic.Bool // to be published when complete
	ended   bool        // guarded by entry.mu
	decided bool        // only the leader's goroutine: ready is closed

	users    int // guarded by entry.mu
	reserved int64
}

// Seat is one request's place in a fill, to be given up with Leave.
type Seat[M any] struct {
	*Fill[M]
	took bool // has its reader
	left bool
}

// Want is what a request asks of Join.
type Want[M any] struct {
	Hash Hash
	Key  []byte
	Ask  Asker[M]
	// Seen is the object that the look-up before found, nil if none.
	Seen *Object[M]
	// MayLead allows to begin a fill.
	MayLead bool
	// Behind is set for a fill that no client waits for from the beginning.
	Behind bool
	Now    time.Time
}

// Join finds a fill that may answer, or begins one. The seat is nil for the
// roles Again and Alone. A leader has a seat too.
func (s *Store[M]) Join(w Want[M]) (*Seat[M], Role) {
	epoch := s.epochs.begin(s.epoch)
	leads := false
	defer func() {
		if !leads {
			s.epochs.end(epoch)
		}
	}()
	e := s.locked(w.Hash, w.Key)
	defer s.unlock(e)
	if found, _ := s.match(e, w.Ask); found.Object != w.Seen {
		return nil, Again
	}
	for _, f := range e.fills {
		if f.suits(w.Ask, epoch) && f.joinLocked() {
			return &Seat[M]{Fill: f}, Follow
		}
	}
	if !w.MayLead || w.Now.UnixNano() < e.alone.Load() || s.ctx.Err() != nil {
		return nil, Alone
	}
	selector, subject := w.Ask.Selector(e.names), w.Ask.Subject()
	leads = true
	f := &Fill[M]{
		Claim: e.claimLocked(epoch), store: s,
		names: e.names, selector: selector, subject: subject,
		behind: w.Behind, ready: make(chan struct{}), users: 1,
	}
	f.ctx, f.cancel = context.WithCancelCause(s.ctx)
	e.fills = append(e.fills, f)
	s.fills.Add(1)
	s.wait.Add(1)
	return &Seat[M]{Fill: f}, Lead
}

// suits reports whether ask may wait for, or read, the fill.
func (f *Fill[M]) suits(ask Asker[M], epoch uint64) bool {
	if f.ctx.Err() != nil {
		return false
	}
	select {
	case <-f.ready:
		if f.object == nil || !ask.Accepts(f.object) || !ask.Joins(f.object) {
			return false
		}
		verdict, _ := f.store.Judge(f.object)
		return verdict == Valid
	default:
		// Until its head is known, a newer purge by tag may be meant for it.
		return ask.Selector(f.names) == f.selector && (epoch == f.epoch || !f.store.o.MayMatch(f.subject, f.epoch))
	}
}

func (f *Fill[M]) joinLocked() bool {
	if f.object != nil && !f.object.Body.join() {
		return false
	}
	if f.users == 0 && !f.behind {
		f.store.abandoned.Add(-1)
	}
	f.users++
	return true
}

// Ready is closed when Object, Refused and Err tell how the wait ended.
func (f *Fill[M]) Ready() <-chan struct{} { return f.ready }

// Object returns what was fetched, once Ready; its body may still grow.
func (f *Fill[M]) Object() *Object[M] { return f.object }

// Refused reports, once Ready, that the response may not be shared.
func (f *Fill[M]) Refused() bool { return f.refused }

// Err returns, once Ready, why nothing was fetched.
func (f *Fill[M]) Err() error { return f.err }

// Context ends when the fill should: the store closes, or nobody needs it.
func (f *Fill[M]) Context() context.Context { return f.ctx }

// Reader returns a reader of the fill's object, which Resolve or Settle gave.
func (t *Seat[M]) Reader(off, length int64) *Reader {
	b := t.object.Body
	if t.took || b.settled.Load() {
		return b.Reader(off, length)
	}
	t.took = true
	r := b.newReader(off, length)
	b.promised(r)
	return r
}

// Stand gives up the seat's right to a reader of the fill's object: a body
// that is not kept whole must not wait for it.
func (t *Seat[M]) Stand() {
	if !t.took && !t.object.Body.settled.Load() {
		t.took = true
		t.object.Body.promised(nil)
	}
}

// Leave gives up the seat; only the first call counts. The last to leave ends a fill that would not be
// stored, and one too many of those that nobody waits for.
func (t *Seat[M]) Leave() {
	f := t.Fill
	e := f.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.left {
		return
	}
	t.left = true
	if f.object != nil && !t.took {
		f.object.Body.promised(nil)
	}
	f.users--
	if f.users > 0 || f.ended {
		return
	}
	tooMany := !f.behind && f.store.abandoned.Load() >= int64(f.store.o.Abandoned)
	if tooMany || f.object != nil && !f.keep.Load() {
		f.cancel(errAbandoned)
		f.unlistLocked() // nobody may join what is about to end
	}
	if !f.behind {
		f.store.abandoned.Add(1)
	}
}

// unlistLocked takes the fill from those that may be joined.
func (f *Fill[M]) unlistLocked() {
	if i := slices.Index(f.entry.fills, f); i >= 0 {
		f.entry.fills = slices.Delete(f.entry.fills, i, i+1)
	}
}

// Resolve ends the wait with an object whose body, of a declared size (-1
// when unknown), Pump will bring. names are its Vary names; keep says whether
// it may be published when complete. The fill sets the object's key, epoch
// and body.
func (f *Fill[M]) Resolve(o *Object[M], size int64, names []string, keep bool) {
	f.mark(o)
	o.Body = newGrowing(size, f.charge)
	o.Body.stalled = &f.store.stalled
	f.keep.Store(keep && size <= f.store.o.MaxObject)
	if !f.keep.Load() {
		o.Body.narrow()
	}
	f.decide(func() {
		f.object = o
		f.entry.names = names
		o.Body.pending = f.users
	})
}

// Settle ends the wait, and the fill, with an object that is complete.
func (f *Fill[M]) Settle(o *Object[M]) {
	f.decide(func() { f.object = o })
	f.end()
}

// Refuse ends the wait, and the fill, because the response may not be shared.
// Each who waited goes on alone. The fill's context goes on, for the response:
// the caller must call end when that has come to its end.
func (f *Fill[M]) Refuse() (end context.CancelCauseFunc) {
	f.decide(func() {
		f.refused = true
		end, f.cancel = f.cancel, func(error) {}
	})
	f.end()
	return end
}

// Fail ends the fill for the reason err: those who wait get it, those who
// read find their body broken. It does nothing after the end.
func (f *Fill[M]) Fail(err error) {
	if !f.decided {
		f.decide(func() { f.err = err })
	} else if f.object != nil && !f.object.Body.settled.Load() {
		_ = f.object.Body.finish(err, nil) // it returns err itself
	}
	f.end()
}

// decide sets how the wait ended, under the lock of those who join and leave.
func (f *Fill[M]) decide(set func()) {
	f.entry.mu.Lock()
	defer f.entry.mu.Unlock()
	set()
	f.decided = true
	close(f.ready)
}

// end takes the fill from its entry and gives back what it held. Only the
// first call counts.
func (f *Fill[M]) end() {
	e := f.entry
	e.mu.Lock()
	if f.ended {
		e.mu.Unlock()
		return
	}
	f.ended = true
	f.unlistLocked()
	if f.users == 0 && !f.behind {
		f.store.abandoned.Add(-1)
	}
	e.claims--
	f.store.unlock(e)
	f.store.epochs.end(f.epoch)
	f.cancel(nil)
	f.store.give(f.reserved)
	f.reserved = 0
	f.store.fills.Add(-1)
	f.store.wait.Done()
}

// charge takes n bytes from the budget, or gives them back when negative.
func (f *Fill[M]) charge(n int64) bool {
	if n < 0 {
		f.store.give(-n)
	} else if !f.store.take(n) {
		return false
	}
	f.reserved += n
	return true
}

// Pump brings the body from r after Resolve, publishes the object when it is
// complete and to be kept, and ends the fill. trailer is asked at the end; it
// may be nil. It returns why the body is broken, if it is.
func (f *Fill[M]) Pump(r io.Reader, trailer func() any) error {
	defer f.end()
	body := f.object.Body
	err := f.pump(body, r)
	var last any
	if err == nil && trailer != nil {
		last = trailer()
	}
	// Whoever has the end may ask again at once: it is told when the object is
	// where that finds it.
	defer body.wake()
	if err = body.settle(err, last); err != nil {
		return err
	}
	if f.keep.Load() {
		// The bytes move from the fill's account to the object's.
		f.store.give(f.reserved)
		f.reserved = 0
	}
	if !f.keep.Load() || !f.store.Publish(f.Claim, f.object) {
		f.object.Forms.leave(f.store.linger)
	}
	return nil
}

func (f *Fill[M]) pump(body *Body, r io.Reader) error {
	var scratch [1]byte
	for {
		p := scratch[:]
		full := body.size >= 0 && body.have == body.size
		if !full {
			var err error
			if p, err = body.space(f.ctx, f.store.o.Stall); err != nil {
				return err
			}
		}
		n, err := r.Read(p)
		if full {
			// Surplus bytes are dropped; whoever brings them sees to their
			// connection (RFC 9112, 6.3).
			n, err = 0, io.EOF
		}
		if err != nil {
			body.commitLast(n)
			if err == io.EOF {
				return nil
			}
			return err
		}
		body.commit(n)
		if f.keep.Load() && (body.have > f.store.o.MaxObject || body.windowed()) {
			f.keep.Store(false)
			body.narrow()
		}
	}
}
