package wasm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"seawall/wasm/abi"
)

// Chain is the functions attached at one place of a site, in order.
type Chain struct {
	functions []*Function
	retained  []*Function // but those that were closed already, which fail
	versions  []version   // of each function; nil when none has a candidate
	runs      sync.Pool
	refs      atomic.Int64 // runs, and one until Close
	once      sync.Once
}

// NewChain makes a chain, to be closed, and retains its functions.
func NewChain(fs []*Function) *Chain {
	c := &Chain{functions: slices.Clone(fs)}
	c.refs.Store(1)
	for _, f := range fs {
		if f.Retain() {
			c.retained = append(c.retained, f)
		}
	}
	return c
}

// Close releases the functions when the last run has ended. A run begun after
// it finds all of them closed; a Slot begins none such.
func (c *Chain) Close() { c.once.Do(c.release) }

// retain is for a run; false when the functions may be gone.
func (c *Chain) retain() bool {
	for {
		n := c.refs.Load()
		if n <= 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *Chain) release() {
	if c.refs.Add(-1) > 0 {
		return
	}
	for _, f := range c.retained {
		f.Release()
	}
}

// Slot holds the chain of one place of a site, which may be replaced while
// requests run. The zero Slot has an empty chain.
type Slot struct{ chain atomic.Pointer[Chain] }

// Swap makes c, which may be nil, the chain of later runs, and closes the one
// before.
func (s *Slot) Swap(c *Chain) {
	if old := s.chain.Swap(c); old != nil {
		old.Close()
	}
}

// Begin is Chain.Begin of the chain of the moment. It returns nil when there
// are no functions.
func (s *Slot) Begin(ctx context.Context, x *abi.Exchange) *Run {
	for {
		c := s.chain.Load()
		if c == nil || len(c.functions) == 0 {
			return nil
		}
		if c.retain() {
			return c.begin(ctx, x, true)
		}
	}
}

// Functions returns the names of the chain's functions, in order.
func (c *Chain) Functions() []string {
	names := make([]string, len(c.functions))
	for i, f := range c.functions {
		names[i] = f.name
	}
	return names
}

// Begin starts a run. x belongs to the run until End, but for the time
// between its calls. x.Stage, viewer_request or origin_request, says where.
// End must be called.
func (c *Chain) Begin(ctx context.Context, x *abi.Exchange) *Run {
	return c.begin(ctx, x, c.retain())
}

func (c *Chain) begin(ctx context.Context, x *abi.Exchange, open bool) *Run {
	r, _ := c.runs.Get().(*Run)
	if r == nil {
		r = &Run{chain: c, entries: make([]entry, len(c.functions))}
		for i := range r.wake {
			r.wake[i] = make(chan struct{}, 1)
		}
		r.wakeUp = func() {
			for _, c := range r.wake {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
		for i := range r.entries {
			r.entries[i].run, r.entries[i].f = r, c.functions[i]
		}
	}
	r.open = open
	r.ctx, r.x, r.reached, r.origin = ctx, x, 0, x.Stage == abi.OriginRequest || x.Stage == abi.OriginResponse
	if c.versions != nil {
		r.choose()
	}
	return r
}
