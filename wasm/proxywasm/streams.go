package proxywasm

// streams are the contexts of a guest, by id. Those of a few exchanges at a
// time have slots: to put one into a map and to take it out again costs more
// than some guests' callbacks. The zero streams has none.
type streams struct {
	slots [8]*stream // each of one whose id ends so, if it was free
	rest  map[uint32]*stream
}

func (t *streams) slot(id uint32) **stream { return &t.slots[id%uint32(len(t.slots))] }

// of returns the stream with that id, nil when there is none.
func (t *streams) of(id uint32) *stream {
	if s := *t.slot(id); s != nil && s.id == id {
		return s
	}
	if len(t.rest) == 0 {
		return nil
	}
	return t.rest[id]
}

// add is for one whose id no other has.
func (t *streams) add(s *stream) {
	if slot := t.slot(s.id); *slot == nil {
		*slot = s
		return
	}
	if t.rest == nil {
		t.rest = make(map[uint32]*stream)
	}
	t.rest[s.id] = s
}

func (t *streams) remove(s *stream) {
	if slot := t.slot(s.id); *slot == s {
		*slot = nil
		return
	}
	delete(t.rest, s.id)
}

// len is how many there are.
func (t *streams) len() int {
	n := len(t.rest)
	for _, s := range t.slots {
		if s != nil {
			n++
		}
	}
	return n
}

// forget removes all, and takes their exchanges from them.
func (t *streams) forget() {
	for i, s := range t.slots {
		if s != nil {
			s.x = nil
			t.slots[i] = nil
		}
	}
	for _, s := range t.rest {
		s.x = nil
	}
	clear(t.rest)
}
