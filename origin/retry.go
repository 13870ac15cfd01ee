package origin

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// errNoServer says that no server is left to ask.
var errNoServer = errors.New("no server is left to ask")

// run sends the request until a server answers well enough, or no other attempt
// is allowed. The package comment draws it.
func (x *exchange) run() (*http.Response, error) {
	defer x.putScratch()
	var last error
	for {
		if err := x.seat(); err != nil {
			if err == errNoServer {
				err = x.fault(nil, stepConnect, false, &Error{Kind: unavailable, Step: stepConnect, Err: err})
			}
			if last != nil {
				err = last // it says more
			}
			return nil, err
		}
		s := x.at
		resp, err := x.attempt(s)
		if err == nil && !x.repeats(s, resp) {
			x.remember(s, resp)
			return resp, nil
		}
		if err != nil && !x.mayGoOn(s, err) {
			return nil, err
		}
		last = err
	}
}

// attempt sends the request to s once, and tells the pool how that went.
func (x *exchange) attempt(s *server) (*http.Response, error) {
	begun, probe, told := time.Now(), x.probe, false
	tell := func(v verdict) {
		if !told {
			told = true
			x.p.report(s, v, probe, time.Since(begun))
		}
	}
	defer func() { tell(saysNothing) }() // after a panic
	resp, err := s.transport.send(x)
	if err != nil && context.Cause(x.ctx) == errSlower {
		x.p.overtaken(s, time.Since(begun))
	}
	tell(x.judge(resp, err))
	if err == nil && x.holds(resp) {
		return x.hold(resp)
	}
	return resp, err
}

// judge returns what an attempt says about its server. A client that leaves and
// statuses below 500 are no failures of it; of those above, the ones that a
// server gives for being unable to answer anything.
func (x *exchange) judge(resp *http.Response, err error) verdict {
	var e *Error
	switch {
	case err == nil && failed5xx(resp.StatusCode):
		return saysBad
	case err == nil:
		return saysGood
	case x.ctx.Err() != nil || errors.As(err, &e) && (e.stale || e.unsent || e.Kind == requestError || e.Kind == connLimit || e.Kind == upgradeFailed):
		return saysNothing
	}
	return saysBad
}

func failed5xx(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// idempotent reports whether sending the request twice does what sending it
// once does (RFC 9110, 9.2.2).
func (x *exchange) idempotent() bool {
	switch x.req.Method {
	case "", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// safe reports whether the request asks to change nothing and has no content.
func (x *exchange) safe() bool {
	return x.up == nil && !x.upgrade && (x.req.Method == "" || x.req.Method == "GET" || x.req.Method == "HEAD")
}

// mayRepeat reports whether the request may be sent once more although a server
// may have had it.
func (x *exchange) mayRepeat() bool {
	return x.idempotent() && !x.up.touched() && !x.relayed.Load() && x.ctx.Err() == nil
}

// mayGoOn reports whether another attempt follows one at s that failed with
// err, and waits before it if need be.
func (x *exchange) mayGoOn(s *server, err error) bool {
	var e *Error
	if !errors.As(err, &e) || x.ctx.Err() != nil || x.p.closed.Load() {
		return false
	}
	if !x.until.IsZero() && !time.Now().Before(x.until) {
		return false // another server would be blamed for the time that this one took
	}
	switch {
	case e.unsent && !x.fresh && !x.up.touched() && (!e.unreached || x.p.takeBudget()): // refused is not closing: it says overload
		x.fresh, x.prefer = true, s // a connection that was closing: a new one will do
		x.p.counts.retries.Add(1)
		return true
	case e.unreached:
		// Nothing was sent: another server may have it at once, whatever the method.
		x.setMark(s, unreachable)
		return !x.up.touched()
	case e.stale && !x.fresh && x.mayRepeat():
		// Servers close idle connections as they like: that is no failure, and a new
		// connection to the same server is not a retry of the budget.
		x.fresh, x.prefer = true, s
		x.p.counts.retries.Add(1)
		return true
	}
	x.setMark(s, tried)
	began := !e.unanswered && !(x.safe() && e.torn())
	return !began && x.mayRepeat() && x.retry(0)
}

// torn reports whether an answer broke off, of which nobody has seen anything.
func (e *Error) torn() bool {
	return e.Step != stepRequest && (e.Kind == responseIncomplete || e.Kind == responseTimeout || e.Kind == connTerminated)
}

// repeats reports whether another attempt follows resp, which then is closed.
func (x *exchange) repeats(s *server, resp *http.Response) bool {
	cfg := &x.p.cfg.Retry
	if !slices.Contains(cfg.On, resp.StatusCode) || !x.safe() || !x.mayRepeat() {
		return false
	}
	wait, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if ok && wait > cfg.MaxRetryAfter || !x.mayRetry() {
		return false
	}
	x.setMark(s, tried)
	if x.p.wellUntried(x) {
		wait = 0 // what this server asks for says nothing about another one
	}
	if !x.retry(wait) {
		return false
	}
	resp.Body.Close()
	return true
}

// wellUntried reports whether a server that is well was not asked yet.
func (p *Pool) wellUntried(x *exchange) bool {
	p.mu.Lock()
	defer p.unlock()
	return slices.ContainsFunc(p.servers, func(s *server) bool { return x.in(wellTier, s) || x.in(backupTier, s) })
}

// mayRetry reports whether an attempt is left.
func (x *exchange) mayRetry() bool {
	cfg := &x.p.cfg.Retry
	return x.retries+1 < cfg.Attempts && (cfg.Within <= 0 || time.Since(x.begun) < cfg.Within) && !x.p.closed.Load()
}

// retry takes an attempt from what the exchange and the pool's budget have
// left, and waits: at least for a given time, and else for a random one that
// doubles with each.
func (x *exchange) retry(least time.Duration) bool {
	cfg := &x.p.cfg.Retry
	if !x.mayRetry() || !x.p.takeBudget() {
		return false
	}
	wait := least
	if most := min(cfg.Backoff<<min(x.retries, 20), cfg.MaxBackoff); most > 0 {
		wait += rand.N(most)
	}
	x.retries++
	x.again = true
	x.p.counts.retries.Add(1)
	return x.sleep(wait)
}

func (p *Pool) takeBudget() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.budget.take(&p.cfg.Retry, time.Now()) {
		p.counts.denied.Add(1)
		return false
	}
	return true
}

// sleep waits for d and reports whether the exchange goes on after it.
func (x *exchange) sleep(d time.Duration) bool {
	if !x.until.IsZero() && time.Now().Add(d).After(x.until) {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-x.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// retryAfter reads a Retry-After field (RFC 9110, 10.2.3): seconds or a date.
// What cannot be read is no wish.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	v = strings.Trim(v, " \t")
	if v != "" && strings.Trim(v, "0123456789") == "" {
		const most = 1 << 30
		n, err := strconv.Atoi(v)
		if err != nil || n > most {
			n = most
		}
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// lost notes that the body of s's answer broke, and returns e.
func (x *exchange) lost(s *server, e *Error) error {
	if x.judge(nil, e) == saysBad {
		x.p.broke(s)
	}
	if x.held.Load() {
		return e // nobody has seen anything of it
	}
	return x.p.count(e)
}
