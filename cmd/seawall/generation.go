package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"

	"seawall/edge"
	"seawall/wasm"
)

// generation is what one configuration made: a handler and what only it uses.
// It ends after its last request.
type generation struct {
	handler *edge.Handler
	access  *edge.AccessLog // nil when off
	file    io.Closer       // behind access; nil when there is none of our own
	pools   map[string]*pool

	settings  *settings     // that it was made of
	functions *functionSet  // nil while it is made
	chains    []*wasm.Chain // of its sites

	// users count the requests inside, in shards so that cores do not share a
	// cache line on every request. A request leaves the shard it entered.
	users   []userCount
	retired atomic.Bool
	left    chan struct{} // told, without blocking, when a request leaves a retired generation
}

type userCount struct {
	n atomic.Int64
	_ [56]byte
}

func newGeneration() *generation {
	n := 1
	for n < runtime.GOMAXPROCS(0) {
		n <<= 1
	}
	return &generation{pools: make(map[string]*pool), users: make([]userCount, n), left: make(chan struct{}, 1)}
}

// current hands requests to the generation of the moment.
type current struct{ atomic.Pointer[generation] }

// ServeHTTP lets the newest generation answer.
func (c *current) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g, shard := c.enter()
	defer g.leave(shard)
	g.handler.ServeHTTP(w, r)
}

// enter counts a request into the newest generation. It looks again after
// counting: a generation replaced in between may have found itself empty.
func (c *current) enter() (*generation, *userCount) {
	for {
		g := c.Load()
		shard := &g.users[rand.Uint32()&uint32(len(g.users)-1)]
		shard.n.Add(1)
		if c.Load() == g {
			return g, shard
		}
		g.leave(shard)
	}
}

func (g *generation) leave(shard *userCount) {
	shard.n.Add(-1)
	if g.retired.Load() {
		select {
		case g.left <- struct{}{}:
		default:
		}
	}
}

// retire waits until every request has left, and ends what no other generation
// uses. No request may enter any more, so a shard once seen empty stays so.
func (g *generation) retire() error {
	g.retired.Store(true)
	for i := range g.users {
		for g.users[i].n.Load() > 0 {
			<-g.left
		}
	}
	g.handler.Close()
	g.closePools()
	g.closeFunctions()
	return g.closeAccess()
}

// chain is chain of the set, closed with the generation.
func (g *generation) chain(names []string, origin bool) *wasm.Chain {
	c := g.functions.chain(names, origin)
	if c != nil {
		g.chains = append(g.chains, c)
	}
	return c
}

func (g *generation) closeFunctions() {
	for _, c := range g.chains {
		c.Close()
	}
	g.functions.close()
}

func (g *generation) closeAccess() error {
	var err error
	if g.access != nil {
		err = g.access.Close()
	}
	if g.file != nil {
		err = errors.Join(err, g.file.Close())
	}
	return err
}

// openAccess starts the access log that s asks for.
func (g *generation) openAccess(s logSettings, t *terminal) error {
	var w io.Writer
	switch s.Access {
	case "off":
		return nil
	case "stdout":
		w = t.out
	case "stderr":
		w = t.err
	default:
		file, err := os.OpenFile(s.Access, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return err
		}
		w, g.file = file, file
	}
	format := edge.LogText
	if s.Format == "json" {
		format = edge.LogJSON
	}
	g.access = edge.NewAccessLog(w, format, 0)
	return nil
}
