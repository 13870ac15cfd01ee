// Package origin fetches from the servers behind one site: an
// [http.RoundTripper] that spreads requests over them, keeps failing ones from
// doing harm, and speaks HTTP/1.1 over connections of its own, HTTP/2 and HTTP/3.
// It knows nothing of caching.
//
// # An attempt
//
// A request takes a place at a server, is sent once over that server's
// transport, and what came of it decides how it goes on:
//
//	          all places taken                     no server left
//	     +--> queue, 1s at most ---> overload           |
//	     |       |                                      v
//	request --> seat --> attempt --+--> answer ---> response
//	             ^  ^              |
//	             |  |              +--> never sent (connect or TLS failed): another
//	             |  +--- at once --+    server, whatever the method
//	             |                 +--> a kept connection was closed: the same server
//	             |                 |    on a new one, if idempotent
//	             |                 +--> failed before an answer, or in one that nobody
//	             |                 |    has seen a byte of; status in Retry.On
//	             |                 |         |
//	             |                 |         v
//	             |                 |    idempotent, content not read, attempts, time
//	             +-- full jitter --+--- and the pool's budget allow it?
//	                               |         | no
//	                               +--> error or answer, as it is
//
// The budget is a share of the requests of the last second, with a floor. It is
// also asked before a server that refused a stream gets it again. A retry prefers a server that was not asked. Nothing of an answer has been seen
// while its small body is held back ([Config.BufferSmall]).
//
// # Which servers
//
// Requests go to servers that are well: not draining, not down by active checks
// ([Health]), not ejected for what they answered ([Passive]), and with a breaker
// that lets them pass. Backups are asked only when no other is well. When none
// is, the best of the rest is tried: the pool's last usable server is neither
// ejected nor broken open. The breaker of each server ([Breaker]):
//
//	           share of failures reached,
//	           and another server is usable
//	+--------+ ---------------------------> +------+
//	| closed |                              | open | <----+
//	+--------+ <---+                        +------+      |
//	               |                           |          | a probe
//	               | Success probes            | after    | fails
//	               | in a row went well        v Open     |
//	               |                      +-----------+   |
//	               +--------------------- | half open | --+
//	                                      +-----------+
//	                                  Probes requests at once
//
// Clients that leave, and statuses below 500, are no failures.
//
// # HTTP/1.1
//
// net/http's transport cannot send a request target as the bytes it is given,
// fails on unknown transfer codings, and lets bytes that a server sends after
// its answer become the answer to somebody else's request. Here the request
// line is written as it is, and a connection is used again only when
//
//   - its last answer ended cleanly, and nothing was buffered behind it;
//   - the socket was silent when the answer ended, has rested since then
//     ([Timeouts.Settle], four times that for a server not yet known), and is
//     silent now, asked without blocking, and stands between two TLS records;
//   - the next request's head is not longer than 4 KiB: a server may refuse a
//     longer one before all of it came;
//   - its server has never sent surplus bytes: one that did loses reuse for the
//     life of the pool.
//
// On Linux the first bytes read on a reused connection are also refused when the
// server's TCP has not acknowledged the request's head: they were sent before it
// came, so they cannot answer it. On every system an answer is read only after
// the head has been written whole.
//
// What cannot be excluded: HTTP/1.1 does not say which request an answer
// belongs to. Bytes that a server, silent until then, starts to send after its
// system has received the next request (elsewhere than on Linux: after our
// silence check) and before the true answer look like that answer. It takes a
// server that has never been seen to send surplus, and surplus that comes later
// than the time to settle, or segments lost and sent again. Where that is not
// good enough, MaxIdle below zero gives every request a connection of its own.
//
// Response heads are read strictly: line ends are CRLF (a bare LF is refused, as
// are bare CR, obs-fold, NUL and other controls, a space before the colon,
// differing lengths, and Content-Length beside Transfer-Encoding). A transfer
// coding other than chunked is not decoded: the field is dropped and the body
// read until the connection closes.
package origin

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is wrapped by what RoundTrip returns after Close.
var ErrClosed = errors.New("pool closed")

// Pool sends requests to its servers. All methods may run at once.
type Pool struct {
	cfg     Config // defaults filled in, durations that are off are 0
	servers []*server
	choose  chooser
	closed  atomic.Bool
	scratch sync.Pool // *scratch, for laying out requests
	buffers sync.Pool // *[]byte of uploadBuffer bytes
	counts  counters

	ctx     context.Context // ends with Close, and with it what runs behind
	cancel  context.CancelFunc
	checks  context.Context // of health checks; ends with ctx at the latest
	unwatch context.CancelFunc
	started sync.Once
	behind  sync.WaitGroup // health checks and name lookups

	// mu guards the fields below, each server's condition, and the exchanges in the
	// queue. It is taken last: after a transport's and names'.
	mu         sync.Mutex
	inFlight   int
	tunnels    int
	queue      []*waiter
	budget     budget
	delays     delays    // to answers' heads, for hedging
	candidates []*server // of the choice under way
	notes      []note    // to be logged by unlock
}

// New returns a pool for cfg, or an error that names the setting at fault. It
// connects to nothing yet.
func New(cfg Config) (*Pool, error) {
	all := cfg.backends()
	cfg = cfg.withDefaults(len(all))
	if err := cfg.check(all); err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg}
	p.choose, _ = cfg.Balance.choice() // checked above
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.checks, p.unwatch = context.WithCancel(p.ctx)
	p.scratch.New = func() any { return new(scratch) }
	p.buffers.New = func() any { b := make([]byte, uploadBuffer); return &b }
	for i, b := range all {
		s, err := newServer(p, i, b)
		if err != nil {
			p.cancel()
			return nil, err
		}
		p.servers = append(p.servers, s)
	}
	return p, nil
}

// RoundTrip is RoundTripHint with the zero Hint.
func (p *Pool) RoundTrip(req *http.Request) (*http.Response, error) {
	return p.RoundTripHint(req, Hint{})
}

// RoundTripHint sends req to a server and returns its final response. req.URL's
// scheme and host do not choose the server. The request target is
// req.RequestURI as it is, when set, else req.URL.RequestURI().
//
// Errors are of type *Error. The request's body is closed in every case, but
// nothing waits for its Close, which may still be under way, or about to begin,
// when RoundTrip returns an error or the response's body has ended or was closed.
// From then on no further Read begins; one under way then, or on the point of
// beginning, lasts until it returns by itself or Close ends it. A body that must not be touched after that needs a
// Close that ends its Read. Interim responses go to the request's
// httptrace.ClientTrace.Got1xxResponse, 100 only if the request expects it, one at
// a time, from any goroutine, and none after RoundTrip has returned;
// GotConn is told of each connection that the request goes to, but for a hedge's.
// After 101 the response's Body is an io.ReadWriteCloser with CloseWrite.
//
// The response's body must be closed. It ends with io.EOF only if it is whole;
// cancelling the request's context ends it too. Trailers are in resp.Trailer
// after io.EOF.
func (p *Pool) RoundTripHint(req *http.Request, hint Hint) (*http.Response, error) {
	p.Start()
	p.counts.requests.Add(1)
	p.mu.Lock()
	p.budget.request(time.Now())
	p.mu.Unlock()
	x, err := p.newExchange(req, hint)
	answered := false
	defer func() { // also after a panic
		if !answered {
			x.up.close()
		}
	}()
	if err != nil {
		return nil, p.count(err)
	}
	var resp *http.Response
	answers := x
	if p.cfg.Hedge.On && x.hedgeable() {
		resp, answers, err = x.hedge()
	} else {
		resp, err = x.run()
	}
	if err != nil {
		return nil, p.count(err)
	}
	answered = true
	if hint.Cookie != nil {
		*hint.Cookie = answers.cookie
	}
	return resp, nil
}

// Start begins the health checks, if there are to be any. The first request
// does it too.
func (p *Pool) Start() {
	p.started.Do(func() {
		if p.cfg.Health.Path == "" && !p.cfg.Health.TCP {
			return
		}
		for _, s := range p.servers {
			p.inBackground(func() { s.watch(p.checks) })
		}
	})
}

// StopChecks ends the health checks for good: for a pool that only serves what it
// has under way, which may be for days.
func (p *Pool) StopChecks() { p.unwatch() }

// inBackground runs f in a goroutine that Close waits for, and returns true,
// unless the pool is closed. f heeds p.ctx.
func (p *Pool) inBackground(f func()) bool {
	p.mu.Lock() // so that Close waits for all that began before it
	defer p.mu.Unlock()
	open := !p.closed.Load()
	if open {
		p.behind.Go(f)
	}
	return open
}

// Close closes idle connections, ends health checks and refuses new requests.
// Exchanges under way end by themselves, and their connections are then closed.
// It returns nil.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	p.cancel()
	for _, s := range p.servers {
		s.transport.close()
	}
	p.behind.Wait()
	return nil
}
