package origin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
)

// untraced is a context without the caller's httptrace: what of it is promised
// is called from here.
type untraced struct{ context.Context }

func (u untraced) Value(key any) any {
	v := u.Context.Value(key)
	if _, is := v.(*httptrace.ClientTrace); is {
		return nil
	}
	return v
}

// interims hands interim responses of a stream to the caller's trace, in a
// goroutine of their own while there are any: the library calls from the one
// that reads the whole connection, and a client that takes nothing must not
// hold up the others. The zero value is ready.
type interims struct {
	mu       sync.Mutex // guards the fields below
	n        int
	waiting  []func() error
	relaying chan struct{} // closed when none is left; nil: none is
	ended    bool
	panicked any
}

// interim is what the library calls with an interim response.
func (st *stream) interim(code int, header textproto.MIMEHeader) error {
	in, x := &st.interims, st.x
	in.mu.Lock()
	defer in.mu.Unlock()
	in.n++
	switch {
	case code == http.StatusSwitchingProtocols:
		return malformed("101 without being asked")
	case in.n > maxInterims:
		return malformed("too many interim responses")
	case in.ended || x.trace == nil || code == http.StatusContinue && !x.expect:
		return nil
	}
	in.waiting = append(in.waiting, func() error {
		if code == http.StatusContinue && x.trace.Got100Continue != nil {
			x.trace.Got100Continue()
		}
		if x.trace.Got1xxResponse == nil {
			return nil
		}
		x.relayed.Store(true)
		return x.trace.Got1xxResponse(code, header)
	})
	if in.relaying == nil {
		in.relaying = make(chan struct{})
		go st.relay(in.relaying)
	}
	return nil
}

// relay tells the caller what waits to be told.
func (st *stream) relay(done chan struct{}) {
	in := &st.interims
	defer close(done)
	for {
		in.mu.Lock()
		if len(in.waiting) == 0 {
			in.relaying = nil
			in.mu.Unlock()
			return
		}
		next := in.waiting[0]
		in.waiting = in.waiting[1:]
		in.mu.Unlock()
		if err := in.guard(next); err != nil {
			st.cancel(errBody{fmt.Errorf("interim response refused: %w", err)})
		}
	}
}

// guard calls f, and keeps a panic for the caller's own goroutine.
func (in *interims) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			in.mu.Lock()
			in.panicked = p
			in.mu.Unlock()
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// end waits until the caller was told everything, or without an answer until it
// is told nothing more.
func (in *interims) end(answered bool) {
	in.mu.Lock()
	in.ended = true
	if !answered {
		in.waiting = nil
	}
	done := in.relaying
	in.mu.Unlock()
	if done != nil {
		<-done
	}
	if in.panicked != nil {
		panic(in.panicked)
	}
}

// spoke reports whether the server has said anything.
func (in *interims) spoke() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.n > 0
}
