package store

import "context"

// Draft collects a body beside a response that goes to one client alone, to
// be published if it turns out whole. It gives up, and frees what it holds,
// when the body is larger than objects may be or the budget is used up.
type Draft[M any] struct {
	store    *Store[M]
	entry    *entry[M]
	body     *Body
	reserved int64
}

// Draft returns a draft for a body of a declared size, -1 when unknown; nil
// when it is larger than objects may be, or when another draft for the key of
// the claim is under way. It must be ended with Body or Drop.
func (s *Store[M]) Draft(c *Claim[M], size int64) *Draft[M] {
	if size > s.o.MaxObject || !c.entry.drafting.CompareAndSwap(false, true) {
		return nil
	}
	d := &Draft[M]{store: s, entry: c.entry}
	d.body = newGrowing(size, d.charge)
	return d
}

func (d *Draft[M]) charge(n int64) bool {
	if n < 0 {
		d.store.give(-n)
	} else if !d.store.take(n) {
		return false
	}
	d.reserved += n
	return true
}

// Intake returns a draft for a body that is pushed: as Draft does, but beside
// any other for the key.
func (s *Store[M]) Intake(size int64) *Draft[M] {
	if size > s.o.MaxObject {
		return nil
	}
	d := &Draft[M]{store: s}
	d.body = newGrowing(size, d.charge)
	return d
}

// Write adds p. It reports false when the draft has been given up.
func (d *Draft[M]) Write(p []byte) bool {
	if d.body == nil {
		return false
	}
	if d.body.have+int64(len(p)) > d.store.o.MaxObject || d.body.size >= 0 && d.body.have+int64(len(p)) > d.body.size {
		d.Drop()
		return false
	}
	for len(p) > 0 {
		room, err := d.body.space(context.Background(), 0)
		if err != nil || d.body.window > 0 {
			d.Drop()
			return false
		}
		n := copy(room, p)
		d.body.commit(n)
		p = p[n:]
	}
	return true
}

// Body ends the draft and returns its body, nil when it was given up or is
// shorter than declared.
func (d *Draft[M]) Body() *Body {
	body := d.body
	d.Drop()
	if body == nil || body.finish(nil, nil) != nil {
		return nil
	}
	return body
}

// Drop gives the draft up. It may be called more than once.
func (d *Draft[M]) Drop() {
	d.body = nil
	d.store.give(d.reserved)
	d.reserved = 0
	if d.entry != nil {
		d.entry.drafting.Store(false)
		d.entry = nil
	}
}
