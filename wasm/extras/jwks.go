package extras

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of fetching.
const (
	maxKeySet    = 1 << 20     // bytes of a page
	leastRefresh = time.Minute // however short its lifetime is
	firstRetry   = time.Second // after a fetch that failed; doubled with each
	mostRetry    = time.Minute
)

// errUnusable is of a page that came whole and has no keys for the node: who
// runs it has to mend it, not the network.
var errUnusable = errors.New("the page has no usable keys")

// keySet is a JWKS that is fetched and kept. One goroutine fetches, from
// openKeySet to close. Verifying never waits for it: what is not known at the
// moment is refused, and the goroutine asked to look again.
type keySet struct {
	name   string
	key    Key
	client *http.Client
	log    *slog.Logger
	stop   context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // one place: to fetch before the time

	keys  atomic.Pointer[[]verifier] // nil until the first fetch that worked
	began atomic.Int64               // when the last fetch began, in ns since 1970
	good  atomic.Int64               // when the last one ended that worked; 0 is never

	fetched, failed, unusable, unknown atomic.Uint64

	faults atomic.Int64 // fetches without keys in a row

	// Of the goroutine alone.
	page []byte // the last good one, to know it again
	etag string
	said trouble
}

// trouble is why a set brings no keys.
type trouble uint8

const (
	noTrouble trouble = iota
	noPage            // it cannot be had
	noKeys            // it has none that can be used
)

// transport is how key sets are fetched. Nothing is kept open between fetches.
// Proxies of the environment are not asked, as for functions' own calls.
func transport() *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true}
}

// openKeySet begins to fetch what k, which has a JWKS, says.
func openKeySet(name string, k Key, rt http.RoundTripper, log *slog.Logger) *keySet {
	j := *k.JWKS
	j.Refresh, j.UnknownKid, j.Timeout = cmp.Or(j.Refresh, time.Hour), cmp.Or(j.UnknownKid, 30*time.Second), cmp.Or(j.Timeout, 5*time.Second)
	k.JWKS = &j
	ctx, stop := context.WithCancel(context.Background())
	s := &keySet{name: name, key: k, log: log, stop: stop, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.client = &http.Client{Transport: rt, Timeout: j.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	go s.run(ctx)
	return s
}

// close ends the goroutine. The keys stay as they are, for functions that
// still run.
func (s *keySet) close() {
	s.stop()
	<-s.done
}

func (s *keySet) run(ctx context.Context) {
	defer close(s.done)
	for ctx.Err() == nil { // of two that are ready, select may choose the timer
		timer := time.NewTimer(s.fetch(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
	}
}

// now returns the keys, or false while there never were any.
func (s *keySet) now() ([]verifier, bool) {
	keys := s.keys.Load()
	if keys == nil {
		return nil, false
	}
	return *keys, true
}

// missed tells that a token had a kid that is not in the set. At most one
// fetch in an interval comes of it, whoever and how many ask.
func (s *keySet) missed() {
	s.unknown.Add(1)
	began := s.began.Load()
	now := time.Now().UnixNano()
	if now-began < int64(s.key.JWKS.UnknownKid) || !s.began.CompareAndSwap(began, now) {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fetch asks for the page once, takes it over, and returns when to ask next.
func (s *keySet) fetch(ctx context.Context) time.Duration {
	s.began.Store(time.Now().UnixNano())
	lifetime, err := s.load(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if err == nil {
		s.fetched.Add(1)
		s.good.Store(time.Now().UnixNano())
		if s.said != noTrouble {
			s.log.Info("the keys of a set can be fetched again", "keys", s.name)
		}
		s.faults.Store(0)
		s.said = noTrouble
		return jitter(min(max(lifetime, leastRefresh), s.key.JWKS.Refresh))
	}
	s.complain(err)
	retry := min(firstRetry<<min(s.faults.Load(), 6), mostRetry, s.key.JWKS.Refresh)
	s.faults.Add(1)
	return jitter(retry)
}

// complain counts a fetch that brought no keys, and says so when it is the
// first, or has another reason than the one before.
func (s *keySet) complain(err error) {
	why, text := noPage, "the keys of a set cannot be fetched"
	if errors.Is(err, errUnusable) {
		why, text = noKeys, "the page of a set has no keys that can be used"
		s.unusable.Add(1)
	} else {
		s.failed.Add(1)
	}
	if s.said == why {
		return
	}
	s.said = why
	args := []any{"keys", s.name, "url", s.key.JWKS.URL, "error", err}
	if s.keys.Load() == nil {
		args = append(args, "hint", "functions that verify with them refuse until they come")
	} else {
		args = append(args, "fetched", time.Unix(0, s.good.Load()).UTC().Format(time.RFC3339), "hint", "the last ones stay in use")
	}
	s.log.Warn(text, args...)
}

// jitter makes nodes that began together ask apart: it takes up to a fifth
// away.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// load fetches the page and puts its keys to use. lifetime is how long the
// answer says that it is good, a very long time if it does not say.
func (s *keySet) load(ctx context.Context) (lifetime time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.key.JWKS.URL, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "seawall")
	if s.etag != "" {
		req.Header.Set("If-None-Match", s.etag)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		if s.etag == "" {
			return 0, errors.New("304 to a request without a validator")
		}
		return freshness(resp.Header), nil
	case http.StatusOK:
	default:
		return 0, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	if err != nil {
		return 0, err
	}
	if len(page) > maxKeySet {
		return 0, fmt.Errorf("it answered more than %d bytes", maxKeySet)
	}
	if err := s.take(page); err != nil {
		return 0, err
	}
	s.etag = resp.Header.Get("ETag")
	return freshness(resp.Header), nil
}

// take puts the keys of a page to use, unless it is the one that is in use.
func (s *keySet) take(page []byte) error {
	if s.keys.Load() != nil && bytes.Equal(page, s.page) {
		return nil
	}
	keys, skipped, err := parseKeySet(page, s.key.Algorithms)
	if err != nil {
		if len(skipped) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(skipped, "; "))
		}
		return err
	}
	for _, why := range skipped {
		s.log.Warn("a key of a set is not used", "keys", s.name, "why", why)
	}
	s.log.Info("keys of a set are in use", "keys", s.name, "count", len(keys))
	s.page = page
	s.keys.Store(&keys)
	return nil
}

// freshness is the lifetime that Cache-Control gives; without one, and for
// one that is too large to tell apart, a year.
func freshness(h http.Header) time.Duration {
	const year = 8760 * time.Hour
	for part := range strings.SplitSeq(strings.Join(h["Cache-Control"], ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if errors.Is(err, strconv.ErrRange) {
				return year
			}
			if err != nil { // a bad lifetime is none (RFC 9111, 4.2.1)
				return 0
			}
			return min(time.Duration(n)*time.Second, year)
		}
	}
	return year
}
