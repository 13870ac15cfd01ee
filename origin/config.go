package origin

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Config describes a pool. Servers or Backends is required; all else has
// defaults.
type Config struct {
	Name string // for errors and metrics
	// Servers are "http://host[:port]" or "https://host[:port]", of equal weight.
	// With Backends, which stand behind them in turn, each may say more.
	Servers  []string
	Backends []Backend

	// Host is the Host field sent: "" or "client" for the request's own,
	// "origin" for the server's name, else this name. TLS asks for (SNI) and
	// verifies the server's name, or this name when Host is a fixed one: with
	// the clients' own hosts a kept connection serves many of them, so there the
	// certificate vouches for the server. TLS.ServerName overrides both.
	Host string

	Timeouts       Timeouts
	MaxIdle        int // kept HTTP/1.1 connections per server beside those used a moment ago; 0: 64; below zero: none is kept
	MaxInFlight    int // per server, until the answer's body ends or protocols are switched; 0: 1024
	MaxTunnels     int // per server, after 101; 0: 1024
	MaxHeaderBytes int // of a response's head; 0: 256 KiB

	// MaxPoolInFlight bounds the requests in flight of the whole pool, so that one
	// slow site cannot take what others need; 0: what its servers take together.
	MaxPoolInFlight int
	// MaxQueue requests may wait for a place, each for QueueWait at most; 0: an
	// eighth of the places, and 1s.
	MaxQueue  int
	QueueWait time.Duration

	Balance   Balance
	Sticky    Sticky
	Retry     Retry
	Breaker   Breaker
	Passive   Passive
	Health    Health
	Hedge     Hedge
	SlowStart time.Duration // a server that returns gets its share over this time; 0: 10s; below zero: off

	// BufferSmall holds a GET's answer back until its body has come, if it says
	// its length and that is no more: should it break, another server is asked and
	// nobody notices. It is held for a second at most, and not at all when no
	// attempt is left. 0: 64 KiB; below zero: off.
	BufferSmall int

	TLS *tls.Config // copied; ALPN is the server's protocol alone
	// Dial makes TCP connections; nil means a net.Dialer. It must heed ctx. What it
	// returns may be used by one reader, one writer and one closer at once.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Resolver looks names up; nil means the system's, unless Dial is set, which
	// then is given names. ResolveEvery is how long an answer without a lifetime
	// of its own holds, as all of the system's are; 0: 30s.
	Resolver     Resolver
	ResolveEvery time.Duration

	Log *slog.Logger // nil: silent
}

// Backend is one server of a pool.
type Backend struct {
	URL      string // "http://host[:port]" or "https://host[:port]"; "srv+http://name" asks DNS for SRV records
	Name     string // for Drain, figures and log; "": URL without a trailing slash. Unique in its pool
	Weight   int    // its share beside the others'; 0: 1
	Backup   bool   // asked only while no other server is usable
	Protocol string // "" or "h1"; "h2" (https), "h2c" (http, prior knowledge), "h3" (https) or "auto": h2 or h1, as the server (https) chooses
}

// Retry says when a request is sent once more. A request that never reached a
// server goes to another one whatever this says. Zero values mean the defaults.
type Retry struct {
	Attempts   int           // in all, the first included; 0: 3, but no more than there are servers; 1: none
	Share      float64       // retries and hedges in a second, of its requests; 0: 0.2; below zero: none
	Floor      int           // so many a second are allowed however few the requests; 0: 10; below zero: none
	Backoff    time.Duration // the most the first retry waits, doubled with each (full jitter); 0: 25ms; below zero: none
	MaxBackoff time.Duration // 0: 1s
	Within     time.Duration // no retry begins later after the request; 0: 10s; below zero: unlimited
	// On lists the statuses of 429 and 5xx after which GET and HEAD are repeated;
	// none by default, as then the server has answered. MaxRetryAfter is the
	// longest Retry-After that is waited for, longer ones are passed on; 0: 2s.
	On            []int
	MaxRetryAfter time.Duration
}

// Breaker says when a server that fails gets no more requests for a while.
// Failures are connections that fail, timeouts, answers cut short and the
// statuses 502, 503 and 504. Zero values mean the defaults.
type Breaker struct {
	Share  float64       // of failures in Window from which it opens; 0: 0.5; below zero: never
	Least  int           // requests in Window without which it stays closed; 0: 20
	Window time.Duration // 0: 10s
	// Open is how long, before it is tried again; 0: 2s. Always the same: a probe
	// costs little, and after a storm the servers are wanted back at once.
	Open    time.Duration
	Probes  int // requests at once while it is tried (half open); 0: 1
	Success int // good answers that close it; 0: 3
}

// Passive says when a server is taken out for what its answers were. Zero
// values mean the defaults.
type Passive struct {
	Failures int           // in a row (see Breaker); 0: 5; below zero: off
	Latency  float64       // times the others' median; 0: 4; below zero: off
	Slow     time.Duration // latencies below it are no reason; 0: 500ms
	Eject    time.Duration // how long, times how often of late; 0: 10s
	MaxEject time.Duration // 0: 5m
	MaxShare float64       // of the servers that may be out at once, though one always may of several; 0: 0.5
}

// Health asks servers how they are. It is off without Path and TCP.
type Health struct {
	Path     string        // in origin form
	TCP      bool          // only connects
	Method   string        // "": GET
	Host     string        // "": Config.Host if fixed, else the server's name
	Status   []int         // expected; none: 200 to 399
	Body     string        // the first 64 KiB must contain it
	Interval time.Duration // give or take a tenth; 0: 5s
	Timeout  time.Duration // 0: 2s
	Rise     int           // good checks in a row that bring a server back; 0: 2
	Fall     int           // bad ones that take it out; 0: 3
}

// Hedge asks a second server when the first is slow, within the retry budget.
// Only GET requests without content and without an upgrade are hedged; the
// slower one is cancelled. It is off by default.
type Hedge struct {
	On    bool
	Delay time.Duration // how long the first is given; 0: what 95 % of recent answers took
	Least time.Duration // the shortest such time; 0: 10ms
}

// Sticky keeps a client at one server with a cookie, for requests whose Hint
// says Uncached. Its value names no address. It is off without Cookie.
type Sticky struct {
	Cookie string        // name
	Path   string        // of the requests that it is for; "": all. Cookies of one name are told apart by it
	MaxAge time.Duration // 0: until the client ends its session
	Secure bool          // sent over TLS alone
}

// Timeouts bound each wait for a server. Zero means the default, below zero
// means off.
type Timeouts struct {
	Connect        time.Duration // name lookup and TCP; 5s
	TLS            time.Duration // handshake; 5s
	Header         time.Duration // from the end of the request to the final head; 30s
	IdleBody       time.Duration // no byte of the response's body; 30s
	WriteIdle      time.Duration // no progress in a write; 30s
	RequestIdle    time.Duration // no byte of the request's body, before the answer; 30s
	Total          time.Duration // the whole exchange, body included; off
	IdleConn       time.Duration // an unused connection; 4s, as servers often close after 5s
	ExpectContinue time.Duration // how long a 100 is waited for; 1s
	// Settle is how long a connection rests before its next request; 5ms. Less
	// risks that late surplus passes for an answer, more costs connections: as
	// many as there are requests in that time.
	Settle time.Duration
}

// setDefault gives *v its default if it is zero, and makes what is off zero.
func setDefault[T int | float64 | time.Duration](v *T, def T) {
	*v = max(cmp.Or(*v, def), 0)
}

// setPositive gives *v its default unless it is above zero.
func setPositive[T int | float64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (t Timeouts) withDefaults() Timeouts {
	setDefault(&t.Connect, 5*time.Second)
	setDefault(&t.TLS, 5*time.Second)
	setDefault(&t.Header, 30*time.Second)
	setDefault(&t.IdleBody, 30*time.Second)
	setDefault(&t.WriteIdle, 30*time.Second)
	setDefault(&t.RequestIdle, 30*time.Second)
	setDefault(&t.Total, 0)
	setDefault(&t.IdleConn, 4*time.Second)
	setDefault(&t.ExpectContinue, time.Second)
	setDefault(&t.Settle, 5*time.Millisecond)
	return t
}

// backends returns all servers of c, those of Servers first.
func (c *Config) backends() []Backend {
	all := make([]Backend, 0, len(c.Servers)+len(c.Backends))
	for _, url := range c.Servers {
		all = append(all, Backend{URL: url})
	}
	return append(all, c.Backends...)
}

// withDefaults returns c complete, for n servers.
func (c Config) withDefaults(n int) Config {
	c.Timeouts = c.Timeouts.withDefaults()
	if c.MaxIdle == 0 {
		c.MaxIdle = 64
	}
	setPositive(&c.MaxInFlight, 1024)
	setPositive(&c.MaxTunnels, 1024)
	setPositive(&c.MaxHeaderBytes, 256<<10)
	setPositive(&c.MaxPoolInFlight, n*c.MaxInFlight)
	setPositive(&c.MaxQueue, max(1, min(c.MaxPoolInFlight, n*c.MaxInFlight)/queueShare))
	setPositive(&c.QueueWait, queueWait)
	setDefault(&c.SlowStart, 10*time.Second)
	setDefault(&c.BufferSmall, 64<<10)
	setPositive(&c.ResolveEvery, 30*time.Second)

	setPositive(&c.Retry.Attempts, min(3, n))
	setDefault(&c.Retry.Share, 0.2)
	setDefault(&c.Retry.Floor, 10)
	setDefault(&c.Retry.Backoff, 25*time.Millisecond)
	setPositive(&c.Retry.MaxBackoff, time.Second)
	setDefault(&c.Retry.Within, 10*time.Second)
	setPositive(&c.Retry.MaxRetryAfter, 2*time.Second)

	setDefault(&c.Breaker.Share, 0.5)
	setPositive(&c.Breaker.Least, 20)
	setPositive(&c.Breaker.Window, 10*time.Second)
	setPositive(&c.Breaker.Open, 2*time.Second)
	setPositive(&c.Breaker.Probes, 1)
	setPositive(&c.Breaker.Success, 3)

	setDefault(&c.Passive.Failures, 5)
	setDefault(&c.Passive.Latency, 4)
	setPositive(&c.Passive.Slow, 500*time.Millisecond)
	setPositive(&c.Passive.Eject, 10*time.Second)
	setPositive(&c.Passive.MaxEject, 5*time.Minute)
	setPositive(&c.Passive.MaxShare, 0.5)

	setPositive(&c.Health.Interval, 5*time.Second)
	setPositive(&c.Health.Timeout, 2*time.Second)
	setPositive(&c.Health.Rise, 2)
	setPositive(&c.Health.Fall, 3)
	setPositive(&c.Hedge.Least, 10*time.Millisecond)
	if c.Resolver == nil && c.Dial == nil {
		c.Resolver = systemResolver{}
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Sticky.Path = c.Sticky.path()
	if c.Host == "client" {
		c.Host = ""
	}
	return c
}

// check returns what is wrong with c, whose servers are all, nil for nothing.
func (c *Config) check(all []Backend) error {
	if len(all) == 0 {
		return errors.New("origin: no servers (hint: give at least one http:// or https:// URL)")
	}
	if err := checkHost(c.Host); err != nil {
		return err
	}
	if _, err := c.Balance.choice(); err != nil {
		return err
	}
	for i, b := range all {
		if b.Weight < 0 {
			return fmt.Errorf("origin: server %q: weight %d is negative (hint: 0 means 1; leave a server out, or drain it, to send it nothing)", shown(b.URL), b.Weight)
		}
		for _, earlier := range all[:i] {
			if b.id() == earlier.id() {
				return fmt.Errorf("origin: two servers are called %q (hint: each needs a name of its own; weight gives one a larger share)", shown(b.id()))
			}
		}
	}
	for _, status := range c.Retry.On {
		if status != http.StatusTooManyRequests && (status < 500 || status > 599) {
			return fmt.Errorf("origin: retry on %d (hint: 429 or 500 to 599)", status)
		}
	}
	if c.Health.Path != "" {
		if _, err := targetOf(&http.Request{RequestURI: c.Health.Path}); err != nil {
			return fmt.Errorf("origin: health path %q (hint: begin it with a slash)", c.Health.Path)
		}
	}
	if m := c.Health.Method; m != "" && (!validName([]byte(m)) || m == http.MethodConnect) {
		return fmt.Errorf("origin: health method %q (hint: GET or HEAD)", m)
	}
	if name := c.Sticky.Cookie; name != "" && !validName([]byte(name)) {
		return fmt.Errorf("origin: sticky cookie name %q (hint: letters, digits and hyphens)", name)
	}
	return nil
}

func (b Backend) id() string { return cmp.Or(b.Name, strings.TrimSuffix(b.URL, "/")) }

// shown returns a server's URL fit for words: without a password.
func shown(raw string) string {
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		return "…" + raw[i:]
	}
	return raw
}

// TLSFiles returns a client configuration that trusts the PEM certificates in
// the file ca alone, shows the certificate in cert and key, and asks for name.
// Each may be "": the system's authorities, no certificate, the server's name.
func TLSFiles(ca, cert, key, name string) (*tls.Config, error) {
	t := &tls.Config{ServerName: name}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("origin: authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("origin: authority %s: no certificate in it (hint: PEM, -----BEGIN CERTIFICATE-----)", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("origin: client certificate and key go together (hint: give both files)")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("origin: client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
