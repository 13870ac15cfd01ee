package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// clientTLS trusts any certificate: the servers' are this program's own, on
// loopback.
func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// newClient returns a client that speaks one protocol over one connection (HTTP/1.1:
// as many as it has requests at once), and what closes it.
func newClient(by protocol) (*http.Client, func()) {
	if by == h3 {
		t := &http3.Transport{TLSClientConfig: clientTLS(), DisableCompression: true,
			QUICConfig: &quic.Config{MaxIdleTimeout: 10 * time.Second, HandshakeIdleTimeout: 10 * time.Second}}
		return &http.Client{Transport: t, Timeout: 30 * time.Second}, func() { _ = t.Close() }
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(by != h2)
	protocols.SetHTTP2(by == h2)
	t := &http.Transport{
		TLSClientConfig:     clientTLS(),
		Protocols:           protocols,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
		ReadBufferSize:      64 << 10,
	}
	return &http.Client{Transport: t, Timeout: 30 * time.Second}, t.CloseIdleConnections
}

// fetchBy returns the body of a 200.
func fetchBy(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return body, err
}

// A line is a connection of clear HTTP/1.1 that requests are written to as they
// are: thousands cost less this way than by net/http.
type line struct {
	net.Conn
	r *bufio.Reader
}

// openLines makes n connections to the host of url, some at a time.
func openLines(ctx context.Context, url string, n int) ([]*line, error) {
	host := strings.TrimPrefix(url, "http://")
	lines := make([]*line, n)
	errs := make([]error, n)
	var dialer net.Dialer
	var open sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range lines {
		slots <- struct{}{}
		open.Go(func() {
			defer func() { <-slots }()
			conn, err := dialer.DialContext(ctx, "tcp", host)
			if err != nil {
				errs[i] = err
				return
			}
			lines[i] = &line{Conn: conn, r: bufio.NewReaderSize(conn, 512)}
		})
	}
	open.Wait()
	for _, err := range errs {
		if err != nil {
			closeLines(lines)
			return nil, err
		}
	}
	return lines, nil
}

func closeLines(lines []*line) {
	for _, l := range lines {
		if l != nil {
			_ = l.Close()
		}
	}
}

// ask gets an object over the line and returns how many bytes its body had.
func (l *line) ask(o object, check patterns) (int64, error) {
	_ = l.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(l, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.path(), l.RemoteAddr()); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s", o.path(), resp.Status)
	}
	if check == nil {
		return io.Copy(io.Discard, resp.Body)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return int64(len(body)), check.verify(o, body, 0, o.size)
}

// loadAtOnce opens all connections, then asks for the first key on all of them in
// the same moment. Latencies count from that.
func loadAtOnce(ctx context.Context, spec loadSpec) (loadResult, error) {
	var result loadResult
	object, err := spec.Keys.keys(1)
	if err != nil {
		return result, err
	}
	lines, err := openLines(ctx, spec.URL, spec.Connections)
	if err != nil {
		return result, err
	}
	defer closeLines(lines)
	stop := context.AfterFunc(ctx, func() { closeLines(lines) })
	defer stop()
	var noise patterns
	if spec.Check {
		noise = newPatterns()
	}
	type answer struct {
		n    int64
		took time.Duration
		err  error
	}
	answers := make([]answer, len(lines))
	begin := make(chan struct{})
	var start time.Time
	var asking sync.WaitGroup
	for i, l := range lines {
		asking.Go(func() {
			<-begin
			a := &answers[i]
			a.n, a.err = l.ask(object(0), noise)
			a.took = time.Since(start)
		})
	}
	start = time.Now()
	close(begin)
	asking.Wait()
	result.Elapsed = time.Since(start)
	var seen histogram
	for _, a := range answers {
		if a.err != nil {
			result.Errors++
			result.FirstError = a.err.Error()
			continue
		}
		result.Requests++
		result.Bytes += a.n
		seen.add(a.took)
	}
	result.P50, result.P99, result.P999, result.Max = seen.quantile(0.5), seen.quantile(0.99), seen.quantile(0.999), seen.max
	return result, nil
}

// holdIdle opens connections, makes one request on each, says so, and keeps them
// until ctx ends.
func holdIdle(ctx context.Context, spec loadSpec, out io.Writer) error {
	lines, err := openLines(ctx, spec.URL, spec.Connections)
	if err != nil {
		return err
	}
	defer closeLines(lines)
	result := loadResult{}
	for _, l := range lines {
		if ctx.Err() != nil {
			break
		}
		if n, err := l.ask(object1K, nil); err != nil {
			result.Errors++
			result.FirstError = err.Error()
		} else {
			result.Requests++
			result.Bytes += n
		}
		l.r = nil // nothing more is read
	}
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
