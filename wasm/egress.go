package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"seawall/wasm/abi"

	"golang.org/x/net/http/httpguts"
)

// Bounds of a guest's calls.
const (
	callTimeout  = 5 * time.Second
	callsAtOnce  = 64
	answerHeader = 64 << 10
)

// egress is an upstream with its connections.
type egress struct {
	base    *url.URL
	timeout time.Duration
	slots   chan struct{}
	rt      *http.Transport
}

func newEgress(u Upstream) (*egress, error) {
	base, err := url.Parse(u.URL)
	if err != nil {
		return nil, err
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("%q has no scheme and host (hint: https://auth.example)", u.URL)
	}
	if u.Timeout <= 0 {
		u.Timeout = callTimeout
	}
	if u.MaxInFlight <= 0 {
		u.MaxInFlight = callsAtOnce
	}
	d := &net.Dialer{Timeout: u.Timeout}
	if !u.AllowPrivate {
		d.Control = public
	}
	// Content is passed as it is sent, proxies of the environment are not
	// asked: they would dial what public refuses.
	rt := &http.Transport{DialContext: d.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 8,
		MaxConnsPerHost: u.MaxInFlight, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: u.Timeout, MaxResponseHeaderBytes: answerHeader}
	return &egress{base: base, timeout: u.Timeout, slots: make(chan struct{}, u.MaxInFlight), rt: rt}, nil
}

var errPrivate = errors.New("loopback, link-local and private addresses are for upstreams that allow them")

// public refuses addresses that are not of the Internet. It sees the address
// that is dialled, so that a name which resolves to another one later, or to
// several, does not help.
func public(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !reachable(ap.Addr().Unmap().WithZone("")) {
		return errPrivate
	}
	return nil
}

func reachable(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range reserved() {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// reserved are prefixes that net/netip does not call private: this network,
// shared address space, IETF protocols, benchmarks, future use; and those of
// IPv6 that carry or translate IPv4 addresses (RFC 6890, 6052, 3056, 4380).
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{0}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{192}), 24),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b}), 32),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01}), 32),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0xc0}), 10),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{}), 96),
	}
}

// HTTPCall implements abi.Services. The call is made by a goroutine that ends
// with its timeout or with the machine.
func (s services) HTTPCall(_ abi.Machine, c *abi.HTTPCall, deliver func(*abi.HTTPReply) error) error {
	m := s.m
	up, ok := m.f.upstreams[c.Upstream]
	if !ok {
		return abi.ErrArgument
	}
	if m.ledger == nil || m.ledger.httpCalls >= m.f.limits.HTTPCalls {
		return abi.ErrLimit
	}
	req, err := up.request(c)
	if err != nil {
		return fmt.Errorf("%w: %w", abi.ErrArgument, err)
	}
	if m.quiet {
		m.ledger.httpCalls++
		return nil // as if under way: the trial ends before any answer
	}
	if m.f.shadow != nil {
		m.f.shadow.refused.Add(1) // it would be a second call for one request
		return abi.ErrLimit
	}
	select {
	case up.slots <- struct{}{}:
	default:
		return abi.ErrLimit
	}
	m.ledger.httpCalls++
	m.ledger.shared = true
	timeout := up.timeout
	if c.Timeout > 0 {
		timeout = min(timeout, c.Timeout)
	}
	ledger := m.ledger
	m.f.host.wait.Add(1)
	go func() {
		defer m.f.host.wait.Done()
		reply := m.ask(up, req, timeout)
		<-up.slots
		m.deliver(ledger, reply, deliver)
	}()
	return nil
}

// deliver gives a guest its answer.
func (m *machine) deliver(l *ledger, reply *abi.HTTPReply, deliver func(*abi.HTTPReply) error) {
	if t := m.enter(nil, 0, false); t == errBusy {
		// Its stream waits no longer than its wait limit.
		m.f.dropped.Add(1)
		return
	} else if t != nil {
		return
	}
	m.ledger = l
	m.leave(stageOwn, deliver(reply))
}

func (m *machine) ask(up *egress, req *http.Request, timeout time.Duration) *abi.HTTPReply {
	ctx, cancel := context.WithTimeout(m.life, timeout)
	defer cancel()
	reply, err := up.do(req.WithContext(ctx), m.f.limits.Body)
	if err != nil {
		m.f.log.Debug("wasm: http call", "function", m.f.name, "error", err)
		return &abi.HTTPReply{}
	}
	return reply
}

// request makes the guest's call into one to the upstream: the guest chooses
// path and Host, never where it goes.
func (e *egress) request(c *abi.HTTPCall) (*http.Request, error) {
	if !httpguts.ValidHeaderFieldName(c.Method) {
		return nil, fmt.Errorf("method %.32q", c.Method)
	}
	if !strings.HasPrefix(c.Target, "/") {
		return nil, fmt.Errorf("path %.64q", c.Target)
	}
	target, err := url.ParseRequestURI(c.Target)
	if err != nil {
		return nil, err
	}
	if len(strings.Trim(e.base.Path, "/")) > 0 && climbs(target.Path) {
		return nil, fmt.Errorf("path %.64q leads out of the upstream's", c.Target)
	}
	u := *e.base
	u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/") + target.EscapedPath()
	u.Path = strings.TrimSuffix(u.Path, "/") + target.Path
	u.RawQuery, u.ForceQuery = target.RawQuery, target.ForceQuery
	req := &http.Request{Method: c.Method, URL: &u, Host: u.Host, Header: http.Header{}, ContentLength: int64(len(c.Body))}
	if c.Authority != "" {
		if !httpguts.ValidHostHeader(c.Authority) {
			return nil, fmt.Errorf("host %.64q", c.Authority)
		}
		req.Host = c.Authority
	}
	for name, lines := range c.Header {
		if dropped(name) {
			continue
		}
		for _, line := range lines {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(line) {
				return nil, fmt.Errorf("field %.64q", name)
			}
		}
		req.Header[http.CanonicalHeaderKey(name)] = lines
	}
	req.Body = http.NoBody
	if len(c.Body) > 0 {
		req.Body = io.NopCloser(strings.NewReader(string(c.Body)))
	}
	if len(c.Trailer) > 0 {
		req.Trailer, req.ContentLength = maps.Clone(c.Trailer), -1
	}
	return req, nil
}

// climbs reports whether a path has a segment "..", by which it would leave
// the one that the upstream's URL has.
func climbs(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if segment == ".." {
			return true
		}
	}
	return false
}

// dropped names fields of a call that are the transport's.
func dropped(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// do asks the upstream itself, so redirects are answers. Content over limit
// makes the call fail.
func (e *egress) do(req *http.Request, limit int64) (*abi.HTTPReply, error) {
	resp, err := e.rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, abi.ErrBody
	}
	return &abi.HTTPReply{Status: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Body: body}, nil
}
