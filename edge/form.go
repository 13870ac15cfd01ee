package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"seawall/edge/encode"
	"seawall/edge/store"
)

// firstPiece is what a coder is given first of a long body, and flushed behind:
// the client's first byte must not wait for a whole block to be coded.
const firstPiece = 4 << 10

// Levels of the forms of an object.
const (
	levelStream = 1 // made while a client waited
	levelBest   = 2 // made behind
)

// sendForm answers with o in the coding that suits the client best. It returns
// false when that is o's own body, which is left to send.
func (x *exchange) sendForm(o *Object, from readFrom) bool {
	e := x.site.encodes()
	if e == nil {
		return false
	}
	accepted := encode.Accept(x.header["Accept-Encoding"])
	c, own := x.choose(e, o, accepted)
	if o.Meta.Status == http.StatusOK && x.unchanged(o, accepted, c, own) {
		return true
	}
	form := o.Forms.At(int(c))
	switch {
	case own:
		if o.Body.Passing() {
			x.codeOnTheWay(false)
		}
		return false
	case x.method == http.MethodHead:
		x.headForm(o, c, form)
		return true
	case form != nil:
		return x.follow(o, from, c, form)
	}
	if x.demand(o, from, c) {
		return true
	}
	// No coder is free: something that is here, then.
	stored, _ := x.made(e, o)
	if c, _ = accepted.Choose(e.Prefer, stored, 0); c == encode.Identity || o.Meta.faces.stack != nil {
		return false
	}
	return x.follow(o, from, c, o.Forms.At(int(c)))
}

// formFields sets the fields of o in a coding that the node made.
func (x *exchange) formFields(m *Meta, c encode.Coding) {
	x.formed = true
	h := x.w.Header()
	fields := m.fieldsOf(c)
	for i := range fields {
		h[fields[i].Name] = fields[i].Values
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
}

// headForm answers a HEAD as GET would be, without a length that is not known:
// no form is made for it.
func (x *exchange) headForm(o *Object, c encode.Coding, form *store.Form) {
	x.formFields(&o.Meta, c)
	if form != nil && form.Kept() && form.Body.Trailer() == nil {
		x.w.Header()["Content-Length"] = o.Meta.faces.length[c].of(form.Body.Size())
	}
	x.head(o.Meta.Status)
}

// follow sends a form, which may still grow. It returns false when it is no
// longer to be had.
func (x *exchange) follow(o *Object, from readFrom, c encode.Coding, form *store.Form) bool {
	if form == nil || form.Body == nil {
		return false
	}
	if p, ok := form.Body.Whole(); ok {
		x.whole(o, c, form.Body, p)
		return true
	}
	r := form.Join()
	if r == nil {
		return false
	}
	if seat, ok := from.(*store.Seat[Meta]); ok {
		seat.Stand() // the fill must not wait for a reader that never comes
	}
	x.sendReader(o, c, form.Body, r)
	return true
}

func (x *exchange) whole(o *Object, c encode.Coding, body *store.Body, p []byte) {
	x.formFields(&o.Meta, c)
	trailer, _ := body.Trailer().(http.Header)
	if trailer == nil {
		x.w.Header()["Content-Length"] = o.Meta.faces.length[c].of(int64(len(p)))
	}
	x.head(o.Meta.Status)
	if trailer != nil {
		_ = http.NewResponseController(x.w).Flush() // else net/http sends a length, and no trailers
	}
	x.write(p)
	x.trailers(trailer)
}

func (x *exchange) sendReader(o *Object, c encode.Coding, body *store.Body, r *store.Reader) {
	defer r.Close()
	x.formFields(&o.Meta, c)
	trailer, _ := body.Trailer().(http.Header)
	if size := body.Size(); size >= 0 && trailer == nil && body.Complete() {
		x.w.Header()["Content-Length"] = o.Meta.faces.length[c].of(size)
	}
	x.head(o.Meta.Status)
	x.stream(r, x.w)
	trailer, _ = body.Trailer().(http.Header)
	x.trailers(trailer)
}

// demand begins the first making of a form and sends it as it grows. The form
// goes on without this client. It returns false when no coder is free.
func (x *exchange) demand(o *Object, from readFrom, c encode.Coding) bool {
	job := &making{h: x.h, o: o, coding: c, src: new(bodyReader)}
	if !job.equip() {
		return false
	}
	m, r := x.h.Store.Make(o, int(c), levelStream)
	if m == nil { // somebody else did, or the object left
		job.release()
		if x.follow(o, from, c, o.Forms.At(int(c))) {
			return true
		}
		x.codeOnTheWay(false)
		return false
	}
	job.Making, job.src.ctx, job.src.from = m, m.Context(), from.Reader(0, -1)
	x.h.wait.Go(job.run)
	x.sendReader(o, c, job.Body(), r)
	return true
}

// making makes one form of one object of what may still be arriving.
type making struct {
	*store.Making[Meta] // set before the first Write
	h                   *Handler
	o                   *Object
	coding              encode.Coding
	src                 *bodyReader
	coder               *encode.Encoder // one of the two
	decoder             *encode.Decoder
}

// equip takes a coder, or a decoder. It is false when none is free.
func (m *making) equip() (ok bool) {
	if m.coding != encode.Identity {
		acquire := m.h.Coders.Acquire
		if m.o.Body.Complete() {
			acquire = m.h.Coders.AcquireWhole
		}
		m.coder, ok = acquire(m.coding, m.o.Body.Size(), m)
		return ok
	}
	var err error
	m.decoder, err = m.h.Decoders.NewReader(m.o.Meta.faces.stack, m.src, m.h.Decode)
	return err == nil
}

// release gives it back.
func (m *making) release() {
	if m.coder != nil {
		m.coder.Abort() // of no effect after Close
	} else {
		_ = m.decoder.Close() // it does not fail
	}
}

// run makes the form, and ends it whatever happens.
func (m *making) run() {
	defer m.src.from.Close()
	defer m.release()
	counts := &m.h.Stats.Encode
	counts.Demands.Add(1)
	var err error
	defer func() {
		if p := recover(); p != nil {
			m.h.Stats.Fault(FaultPanic)
			err = fmt.Errorf("edge: coding panicked: %v", p)
		}
		m.end(err)
	}()
	if m.coder == nil {
		err = m.decode()
		return
	}
	err = m.encode()
}

// end settles the form. One that is no smaller than identity is remembered as
// not worth it, and so is one that failed by its content. An object whose coding
// cannot be undone is not kept.
func (m *making) end(err error) {
	in, out := m.o.Body.Have(), m.Size()
	gone := m.Context().Err() != nil || !m.o.Body.Complete()
	worth := err == nil && (m.coder == nil || out < in) || err != nil && gone
	m.Done(err, worth, codedTrailer(m.o))
	if m.coder != nil {
		m.h.recoder.woken()
		m.h.Stats.Encode.In.Add(uint64(in))
		m.h.Stats.Encode.Out.Add(uint64(out))
	}
	refused := m.coder == nil && (errors.Is(err, encode.ErrBomb) || errors.Is(err, encode.ErrMalformed))
	if refused {
		m.h.Stats.Encode.DecodeRefused.Add(1)
		m.h.Store.Discard(m.o) // nobody is to be given it again
	}
	if refused || err != nil && !gone {
		m.h.words.say(slog.LevelWarn, "coding failed", "url", clip(m.o.Key), "coding", m.coding.String(), "err", err)
	}
}

// encode codes the body: all at once what is here, and behind the coder what
// has to be waited for.
func (m *making) encode() error {
	held := false // the coder has bytes that no client got
	first := true
	for {
		if held && m.src.from.Waiting() {
			if err := m.coder.Flush(); err != nil {
				return err
			}
			held = false
		}
		p, err := m.src.from.Next(m.Context())
		if err == io.EOF {
			return m.coder.Close()
		}
		if err != nil {
			return err
		}
		if m.o.Body.Passing() {
			m.Narrow()
		}
		if first && len(p) > 4*firstPiece {
			if _, err = m.coder.Write(p[:firstPiece]); err == nil {
				err = m.coder.Flush()
			}
			p = p[firstPiece:]
		}
		first, held = false, true
		if err == nil {
			_, err = m.coder.Write(p)
		}
		if err != nil {
			return err
		}
	}
}

// decode undoes what the origin coded, within limits that stop bombs.
func (m *making) decode() error {
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, err := m.decoder.Read(*buffer)
		if m.o.Body.Passing() {
			m.Narrow()
		}
		if _, failed := m.Write((*buffer)[:n]); failed != nil {
			return failed
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bodyReader reads a body that may still grow as an io.Reader.
type bodyReader struct {
	ctx  context.Context
	from *store.Reader
	rest []byte
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		var err error
		if b.rest, err = b.from.Next(b.ctx); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
