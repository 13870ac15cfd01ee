package origin

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// checkedBody is how much of an answer a health check reads.
const checkedBody = 64 << 10

// watch asks s how it is until ctx ends.
func (s *server) watch(ctx context.Context) {
	cfg := &s.p.cfg.Health
	// Spread over an interval, so that servers are not asked all at once; the
	// first time soon, so that one that is down is known early.
	for wait := rand.N(cfg.Interval/10 + 1); ; wait = cfg.Interval*9/10 + rand.N(cfg.Interval/5+1) {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		err := s.check(ctx)
		if ctx.Err() != nil {
			return
		}
		s.p.checked(s, err)
	}
}

// check asks s once. nil means that it is well.
func (s *server) check(ctx context.Context) (err error) {
	cfg := &s.p.cfg.Health
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	defer func() { // Config.Dial and callbacks of Config.TLS are the caller's
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if cfg.Path == "" {
		nc, _, err := s.connect(&exchange{p: s.p, ctx: ctx})
		if err == nil {
			err = nc.Close()
		}
		return err
	}
	req := &http.Request{
		Method: cmp.Or(cfg.Method, http.MethodGet), RequestURI: cfg.Path, Host: cmp.Or(cfg.Host, s.fixedHost(), s.host),
		Header: http.Header{"User-Agent": {"seawall-health"}},
	}
	x, err := s.p.newExchange(req.WithContext(ctx), Hint{})
	if err != nil {
		return err
	}
	defer x.putScratch()
	x.host = req.Host
	x.fresh, x.close = true, true // a kept connection proves little
	resp, err := s.transport.send(x)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	ok := resp.StatusCode < 400
	if len(cfg.Status) > 0 {
		ok = slices.Contains(cfg.Status, resp.StatusCode)
	}
	if !ok {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	if cfg.Body == "" {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, checkedBody))
	if err == nil && !bytes.Contains(b, []byte(cfg.Body)) {
		err = fmt.Errorf("body does not contain %q", cfg.Body)
	}
	return err
}

// checked notes what a health check came to, and takes s out or brings it back
// when enough of them in a row agree.
func (p *Pool) checked(s *server, err error) {
	p.mu.Lock()
	defer p.unlock()
	cfg := &p.cfg.Health
	if err == nil {
		s.checks = max(s.checks, 0) + 1
	} else {
		s.checks = min(s.checks, 0) - 1
	}
	switch {
	case s.down && s.checks >= cfg.Rise:
		s.down = false
		s.ejected = time.Time{}
		p.returnsLocked(s, time.Now(), "healthy")
	case !s.down && -s.checks >= cfg.Fall:
		s.down = true
		p.noteLocked(slog.LevelWarn, s, "unhealthy: "+err.Error())
	}
}

// fixedHost returns the Host that every request gets, if there is such a one.
func (s *server) fixedHost() string {
	if s.p.cfg.Host == "origin" {
		return ""
	}
	return s.p.cfg.Host
}
