package origin

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long says whether runs that take minutes are wanted.
func long() bool { return os.Getenv("SEAWALL_LONG") == "1" }

// peer is the server's end of a connection.
type peer struct {
	net.Conn
	r *bufio.Reader
}

// request reads a request and its body; false at the connection's end.
func (p *peer) request() (*http.Request, string, bool) {
	req, err := http.ReadRequest(p.r)
	if err != nil {
		return nil, "", false
	}
	b, err := io.ReadAll(req.Body)
	return req, string(b), err == nil
}

// head reads a request's head as it was sent.
func (p *peer) head() string {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		c, err := p.r.ReadByte()
		if err != nil {
			return b.String()
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (p *peer) send(s string) { io.WriteString(p.Conn, s) }

// drain reads until the client closes.
func (p *peer) drain() { io.Copy(io.Discard, p.r) }

// pipes is an origin over net.Pipe: the n-th connection runs the n-th script,
// further ones the last.
type pipes struct {
	scripts []func(*peer)
	mu      sync.Mutex // guards the rest
	dials   []string
	conns   []net.Conn
	wg      sync.WaitGroup
}

func (o *pipes) dial(_ context.Context, _, addr string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	script := o.scripts[min(len(o.dials), len(o.scripts)-1)]
	o.dials = append(o.dials, addr)
	client, server := net.Pipe()
	o.conns = append(o.conns, server)
	o.wg.Go(func() {
		defer server.Close()
		script(&peer{server, bufio.NewReader(server)})
	})
	return client, nil
}

func (o *pipes) dialled() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.dials)
}

// stop ends the origin.
func (o *pipes) stop() {
	o.mu.Lock()
	for _, c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

// pipePool returns a pool over scripts and a function that ends both.
func pipePool(t *testing.T, cfg Config, scripts ...func(*peer)) (*Pool, *pipes, func()) {
	t.Helper()
	o := &pipes{scripts: scripts}
	if cfg.Servers == nil {
		cfg.Servers = []string{"http://origin.test"}
	}
	if cfg.Dial == nil {
		cfg.Dial = o.dial
	}
	p := mustNew(t, cfg)
	return p, o, func() { p.Close(); o.stop() }
}

func mustNew(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answers serves any number of requests with the same bytes.
func answers(response string) func(*peer) {
	return func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.send(response)
		}
	}
}

// once answers one request, then closes.
func once(response string) func(*peer) {
	return func(p *peer) {
		p.request()
		p.send(response)
	}
}

// stall answers one request, then stays silent until the client closes.
func stall(response string) func(*peer) {
	return func(p *peer) {
		p.request()
		p.send(response)
		p.drain()
	}
}

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// result is what a request came to.
type result struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error
}

func do(p *Pool, req *http.Request) result {
	resp, err := p.RoundTrip(req)
	if err != nil {
		return result{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, resp.Header, resp.Trailer, string(b), err}
}

func get(t testing.TB, p *Pool) result {
	t.Helper()
	return do(p, newRequest(t, "GET", "http://site.test/", nil))
}

// kind returns an error's Proxy-Status type, "" for none.
func kind(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.ProxyStatus()
	}
	if err != nil {
		return "not an *Error: " + err.Error()
	}
	return ""
}

// settled is longer than any connection of a default pool has to rest.
const settled = newServerSettle * settle

// settle is Timeouts.Settle's default.
const settle = 5 * time.Millisecond

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

func itoa(n int) string { return strconv.Itoa(n) }

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// newCertificate returns a certificate for a client and its key, in PEM.
func newCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", secret)
}
