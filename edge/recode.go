package edge

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"seawall/edge/encode"
	"seawall/edge/store"
)

const (
	// recodePause is between two looks for hot objects, while there are any
	// whose codings could be better.
	recodePause = 10 * time.Second
	// recodeHeat is how often an object was used, by Heat, before its codings
	// are made again: some thirty hits pay for the work in bytes.
	recodeHeat = 2
	// recodeMost is how many codings are made again between two looks.
	recodeMost = 16
	// recodeSize is the largest body: brotli takes about four seconds for each
	// MiB, and the larger a body, the more seldom it is hot.
	recodeSize = 8 << 20
)

// errNoSmaller ends a coding that is no smaller than the one it should replace.
var errNoSmaller = errors.New("edge: coding grows past what it should replace")

// recoder is the one worker that makes codings again, for as long as there is
// something to gain. Requests only ever wake it.
type recoder struct {
	h    *Handler
	wake chan struct{} // holds one
	pace encode.Pace
	last time.Time // when pace was last asked
}

func newRecoder(h *Handler) *recoder {
	r := &recoder{h: h, wake: make(chan struct{}, 1)}
	r.woken() // for what the handler before left
	share := encode.Share(h.Recode)
	r.pace = func(ctx context.Context, took time.Duration) error {
		err := share(ctx, took)
		r.last = time.Now()
		return err
	}
	return r
}

// woken is called when there is a coding that could be better. It never waits;
// a nil recoder has nothing to do.
func (r *recoder) woken() {
	if r == nil {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recoder) run() {
	ctx := r.h.ctx
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			timer := time.NewTimer(recodePause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			more = r.look(ctx)
		}
	}
}

// task is one coding to make again, or for the first time.
type task struct {
	o      *Object
	coding encode.Coding
	form   *store.Form // nil when there is none yet
	heat   uint32
}

// look makes the codings of the hottest objects again. It reports whether
// there may be others, when they are hot enough.
func (r *recoder) look(ctx context.Context) (more bool) {
	r.last = time.Now()
	var tasks []task
	r.h.Store.Each(func(o *Object) bool {
		for _, t := range r.h.recodable(o) {
			more = true
			if t.heat >= recodeHeat {
				tasks = append(tasks, t)
			}
		}
		if len(tasks) > 4*recodeMost {
			tasks = hottest(tasks)
		}
		return ctx.Err() == nil
	})
	for _, t := range hottest(tasks) {
		if r.pace(ctx, time.Since(r.last)) != nil {
			return false
		}
		r.recode(ctx, t)
	}
	return more && r.pace(ctx, time.Since(r.last)) == nil
}

func hottest(tasks []task) []task {
	slices.SortStableFunc(tasks, func(a, b task) int { return int(b.heat) - int(a.heat) })
	return tasks[:min(len(tasks), recodeMost)]
}

// recodable returns what could be made of an object: its codings that were made
// while a client waited, and the one that its site likes best.
func (h *Handler) recodable(o *Object) (tasks []task) {
	f := o.Meta.faces
	if f == nil || f.stack != nil || o.Forms == nil || !o.Body.Complete() || o.Body.Size() > recodeSize || o.Invalid() {
		return nil
	}
	s := h.sites.of(o.Meta.Subject.URL.Host)
	if s == nil || s.encodes() == nil {
		return nil
	}
	e, any := s.encodes(), false
	for i := identityForm + 1; i < forms; i++ {
		form := o.Forms.At(i)
		if form == nil || !form.Kept() {
			continue
		}
		any = true
		if form.Level < levelBest && e.makes().Has(encode.Coding(i)) {
			tasks = append(tasks, task{o, encode.Coding(i), form, o.Heat()})
		}
	}
	best := encode.Brotli
	if len(e.Prefer) > 0 {
		best = e.Prefer[0]
	}
	if any && o.Forms.At(int(best)) == nil {
		tasks = append(tasks, task{o, best, nil, o.Heat()})
	}
	return tasks
}

// recode makes one coding as dense as it gets, and puts it in the place of the
// one that is there. One that is no denser leaves that as good as it gets.
func (r *recoder) recode(ctx context.Context, t task) {
	most := t.o.Body.Size()
	if t.form != nil {
		most = t.form.Body.Size()
	}
	in := &bodyReader{ctx: ctx, from: t.o.Body.Reader(0, -1)}
	defer in.from.Close()
	out := &bounded{left: most - 1}
	_, err := encode.Best(ctx, t.coding, out, in, t.o.Body.Size(), r.pace)
	better := err == nil
	if !better && !errors.Is(err, errNoSmaller) {
		return // the handler closes, or the object is gone
	}
	st, i := r.h.Store, int(t.coding)
	switch {
	case better:
		body := store.NewBody(bytes.Clone(out.Bytes()))
		body.SetTrailer(codedTrailer(t.o))
		better = st.Replace(t.o, i, t.form, body, levelBest)
	case t.form != nil:
		st.Replace(t.o, i, t.form, t.form.Body, levelBest)
	default:
		st.Replace(t.o, i, nil, nil, levelBest)
	}
	if better {
		counts := &r.h.Stats.Encode
		counts.Recodings.Add(1)
		counts.In.Add(uint64(t.o.Body.Size()))
		counts.Out.Add(uint64(out.Len()))
	}
}

// bounded is a buffer that takes no more than it has left.
type bounded struct {
	bytes.Buffer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errNoSmaller
	}
	return b.Buffer.Write(p)
}
