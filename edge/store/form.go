package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// MaxForms is how many forms one object may have beside its own body.
const MaxForms = 4

// Forms are further bodies of one object, made of its body and told apart by a
// number: the same content in other codings. A refresh hands them on to the
// fresh object. They leave the store with their object, never before it: an
// object without them would make its next clients pay for them again, and one
// entry can be judged by its hits where four could not.
//
// Lock order: entry.mu, then mu. No lock is held while the keeper is told.
type Forms struct {
	at   [MaxForms]atomic.Pointer[Form]
	mu   sync.Mutex // held by those who change at otherwise than from nil
	left bool       // guarded by mu: the store let go of the object
}

// Form is one of an object's forms. It never changes: another takes its place.
type Form struct {
	// Body is the content, which may still grow; nil when this form is known
	// not to be worth its bytes.
	Body *Body
	// Level says how much work went into it: the larger the better.
	Level int

	kept bool // its bytes are counted as the object's
}

// At returns the form of a number, nil when there is none. It takes no lock.
func (f *Forms) At(i int) *Form { return f.at[i].Load() }

// Kept reports whether the form is made and counted as its object's.
func (f *Form) Kept() bool { return f.kept }

// Join returns a reader of the form from its beginning, to be closed; nil when
// the beginning is no longer held, or the form broke.
func (f *Form) Join() *Reader {
	b := f.Body
	if b.settled.Load() {
		if b.err != nil || b.first != 0 {
			return nil
		}
		return b.Reader(0, -1)
	}
	r := b.newReader(0, -1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.first != 0 {
		return nil
	}
	b.addLocked(r)
	return r
}

// formOverhead is the memory that a form takes beside its content.
const formOverhead = 300

// held returns the bytes of memory that the finished forms take.
func (f *Forms) held() int64 {
	if f == nil {
		return 0
	}
	var n int64
	for i := range f.at {
		if form := f.at[i].Load(); form != nil && form.kept {
			n += form.Body.held() + formOverhead
		}
	}
	return n
}

// leave is called when the store lets go of the object: what readers still
// have of its forms is charged as that of its body.
func (f *Forms) leave(charge func(int64) bool) {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.left = true
	f.mu.Unlock()
	for i := range f.at {
		if form := f.at[i].Load(); form != nil && form.kept {
			form.Body.leave(charge)
		}
	}
}

// swap puts another form, or none, in the place of old. It is false when old
// is not there any more, or the object left.
func (f *Forms) swap(i int, old, form *Form) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.left && f.at[i].CompareAndSwap(old, form)
}

// leave is called when the store lets go of o.
func (o *Object[M]) leave(charge func(int64) bool) {
	o.Body.leave(charge)
	o.Forms.leave(charge)
}

// Making is a form being made: a Writer that those who asked for the form
// meanwhile follow. It belongs to one goroutine, which ends it with Done.
type Making[M any] struct {
	store    *Store[M]
	object   *Object[M]
	number   int
	form     *Form
	reserved int64
	unlisted bool // nobody may join any more
}

// Make begins the form of a number, and returns it with a reader of it for
// the caller, to be closed. Both are nil when there is a form of that number
// already, or when the store let go of the object, whose Forms must not be
// nil. The bytes written are charged as those of a fill; once these have used
// up their budget the form goes on through a narrow window for its readers,
// and is not kept.
func (s *Store[M]) Make(o *Object[M], number, level int) (*Making[M], *Reader) {
	f := o.Forms
	m := &Making[M]{store: s, object: o, number: number}
	body := newGrowing(-1, m.charge)
	body.stalled = &s.stalled
	m.form = &Form{Body: body, Level: level}
	r := body.Reader(0, -1) // before any window could pass it by
	if s.ctx.Err() != nil || !f.swap(number, nil, m.form) {
		return nil, nil
	}
	s.wait.Add(1)
	return m, r
}

// Context ends when the store closes.
func (m *Making[M]) Context() context.Context { return m.store.ctx }

// Body returns the body that grows.
func (m *Making[M]) Body() *Body { return m.form.Body }

// Size returns the bytes written so far.
func (m *Making[M]) Size() int64 { return m.form.Body.Have() }

// Narrow lets the form go on for its readers alone, at the pace of the slowest
// of them: what it is made of is not held whole either.
func (m *Making[M]) Narrow() {
	m.form.Body.narrow()
	m.unlist()
}

func (m *Making[M]) unlist() {
	if !m.unlisted {
		m.unlisted = true
		m.object.Forms.swap(m.number, m.form, nil)
	}
}

func (m *Making[M]) charge(n int64) bool {
	if n < 0 {
		m.store.give(-n)
	} else if !m.store.take(n) {
		return false
	}
	m.reserved += n
	return true
}

// Write appends to the form. It waits for readers only where the form is not
// kept whole, and fails when none is left then.
func (m *Making[M]) Write(p []byte) (int, error) {
	body, done := m.form.Body, 0
	for done < len(p) {
		room, err := body.space(m.store.ctx, m.store.o.Stall)
		if err != nil {
			return done, err
		}
		if !m.unlisted && body.windowed() {
			m.unlist()
		}
		n := copy(room, p[done:])
		body.commit(n)
		done += n
	}
	return done, nil
}

// Done ends the form: broken for the reason err, or complete. It is kept when
// it is worth its bytes and the object is still stored or about to be; one
// that is not worth them leaves a mark that says so. trailer is the body's.
func (m *Making[M]) Done(err error, worth bool, trailer any) {
	defer m.store.wait.Done()
	body, f := m.form.Body, m.object.Forms
	err = body.finish(err, trailer)
	m.store.give(m.reserved)
	m.reserved = 0
	switch {
	case err == nil && worth && !m.unlisted && m.store.fits(m.object, body) && !m.store.gone(m.object):
		if f.swap(m.number, m.form, &Form{Body: body, Level: m.form.Level, kept: true}) {
			m.store.resizeOf(m.object)
			return
		}
	case worth:
		f.swap(m.number, m.form, nil)
	default:
		f.swap(m.number, m.form, &Form{})
	}
	body.leave(m.store.linger)
}

// fits reports whether the object may grow by a form: it must not crowd out
// everything else, itself included.
func (s *Store[M]) fits(o *Object[M], form *Body) bool {
	return o.cost()+form.held() <= s.o.Memory/2
}

// Replace puts a complete body, made with more work, in the place of a form, or
// the same body when more work gains nothing. Those who read the old one go on
// with it. Where old is nil, it puts a form where there was none; a nil body
// then marks it as not worth its bytes. It is false when old is not there any
// more, is still being made, or the object left the store or may not grow so.
func (s *Store[M]) Replace(o *Object[M], number int, old *Form, body *Body, level int) bool {
	form := &Form{Body: body, Level: level, kept: body != nil}
	if old != nil && !old.kept || old == nil && body != nil && !s.fits(o, body) || s.gone(o) || !o.Forms.swap(number, old, form) {
		return false
	}
	s.resizeOf(o)
	if old != nil && body != old.Body {
		old.Body.leave(s.linger)
	}
	return true
}

// resizeOf tells the keeper what the slot costs that has o, or what a refresh
// made of it. Where there is none, the object is about to be published, which
// counts its forms, or never will be.
func (s *Store[M]) resizeOf(o *Object[M]) {
	key := []byte(o.Key)
	e := s.table.find(s.Hash(key), key)
	if e == nil {
		return
	}
	for _, at := range e.variants() {
		if at.object.Load().Forms == o.Forms {
			s.resize(at)
			return
		}
	}
}
