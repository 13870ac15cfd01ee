package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func TestBodyMustHaveItsDeclaredLength(t *testing.T) {
	broken := errors.New("client left")
	tests := []struct {
		name     string
		body     io.Reader
		length   int64
		trailer  http.Header
		want     error
		complete bool
	}{
		{"exact", strings.NewReader("hello"), 5, nil, nil, true},
		{"short", strings.NewReader("hell"), 5, nil, errBodyShort, false},
		{"long", strings.NewReader("hello!"), 5, nil, errBodyLong, false},
		{"short in chunks", strings.NewReader("hell"), 5, http.Header{"X": nil}, errBodyShort, false},
		{"long in chunks", strings.NewReader("hello!"), 5, http.Header{"X": nil}, errBodyLong, false},
		{"fails", io.MultiReader(strings.NewReader("hel"), failing{broken}), 5, nil, broken, false},
		{"fails in chunks", io.MultiReader(strings.NewReader("hel"), failing{broken}), -1, nil, broken, false},
		{"fails at its end", io.MultiReader(strings.NewReader("hello"), failing{broken}), 5, nil, broken, false},
		{"no progress", failing{nil}, 5, nil, io.ErrNoProgress, false},
		{"bad trailer", strings.NewReader("hello"), -1, http.Header{"X": {"a\nb"}}, errTrailer, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				complete := false
				p, _, stop := pipePool(t, Config{}, func(p *peer) {
					if _, _, complete = p.request(); complete {
						p.send(hello)
					}
				})
				body := &tracked{Reader: tt.body}
				req := newRequest(t, "POST", "http://site.test/", body)
				req.ContentLength, req.Trailer = tt.length, tt.trailer
				r := do(p, req)
				stop()
				synctest.Wait()
				if !errors.Is(r.err, tt.want) || (tt.want != nil) != (kind(r.err) == requestError) || complete != tt.complete || !body.closed.Load() {
					t.Errorf("got %v, complete for the server %v, closed %v, want %v, %v, true", r.err, complete, body.closed.Load(), tt.want, tt.complete)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestEarlyResponse has the server answer while the request's body is on its way.
func TestEarlyResponse(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge",
	} {
		for _, body := range []struct {
			name string
			io.Reader
		}{{"endless", bytesForever{}}, {"silent", nil}} {
			synctest.Test(t, func(t *testing.T) {
				p, o, stop := pipePool(t, Config{}, func(p *peer) {
					p.head()
					p.send(answer)
					time.Sleep(time.Second) // reads no more
				}, answers(hello))
				defer stop()
				b := &tracked{Reader: body.Reader}
				var content io.ReadCloser = b
				if body.Reader == nil {
					content = endless()
				}
				start := time.Now()
				r := do(p, newRequest(t, "POST", "http://site.test/", content))
				if d := time.Since(start); r.status != 413 || r.err != nil || d != 0 {
					t.Errorf("%q, %s body: got %+v after %v", answer, body.name, r, d)
				}
				synctest.Wait()
				if body.Reader != nil && !b.closed.Load() {
					t.Errorf("%q, %s body: not closed", answer, body.name)
				}
				time.Sleep(settled)
				if r := get(t, p); r.body != "hello" || o.dialled() != 2 {
					t.Errorf("%q, %s body: then %+v over %d connections, want the second", answer, body.name, r, o.dialled())
				}
			})
		}
	}
}

// TestStuckBody has a request body whose Read does not heed Close, which waits
// for it, as net/http's own do.
func TestStuckBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		})
		defer stop()
		release := make(chan struct{})
		start := time.Now()
		r := do(p, newRequest(t, "POST", "http://site.test/", stuck(release)))
		if d := time.Since(start); r.status != 413 || d != 0 {
			t.Errorf("got %+v after %v, want 413 at once", r, d)
		}
		close(release)
		synctest.Wait()
	})
}

type stuck chan struct{}

func (s stuck) Read([]byte) (int, error) { <-s; return 0, io.EOF }
func (s stuck) Close() error             { <-s; return nil }

func TestFullDuplex(t *testing.T) {
	p, _, stop := pipePool(t, Config{}, func(p *peer) {
		req, err := http.ReadRequest(p.r)
		if err != nil {
			return
		}
		p.send(chunkedHead)
		b := make([]byte, 100)
		for {
			n, err := req.Body.Read(b)
			if n > 0 {
				p.send(chunkOf(string(b[:n])))
			}
			if err != nil {
				p.send("0\r\n\r\n")
				return
			}
		}
	})
	defer stop()
	r, w := io.Pipe()
	resp, err := p.RoundTrip(newRequest(t, "POST", "http://site.test/", r))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 100)
	for _, s := range []string{"one", "two", "three"} {
		io.WriteString(w, s)
		if n, err := resp.Body.Read(b); string(b[:n]) != s || err != nil {
			t.Errorf("sent %q: got %q, %v", s, b[:n], err)
		}
	}
	w.Close()
	if n, err := resp.Body.Read(b); n != 0 || err != io.EOF {
		t.Errorf("at the end: got %q, %v", b[:n], err)
	}
}

// TestBodyFailsWhileTheResponseIsRead checks that the response does not end as
// if it were whole.
func TestBodyFailsWhileTheResponseIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 200 OK\r\n\r\nhalf")
			p.drain()
		})
		defer stop()
		r, w := io.Pipe()
		broken := errors.New("client left")
		time.AfterFunc(time.Second, func() { w.CloseWithError(broken) })
		got := do(p, newRequest(t, "POST", "http://site.test/", r))
		if got.body != "half" || !errors.Is(got.err, broken) || kind(got.err) != requestError {
			t.Errorf("got %+v, want half and %v", got, broken)
		}
	})
}

func TestUploadsReuseConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{}, answers(hello))
		defer stop()
		for _, length := range []int64{100_000, -1} {
			req := newRequest(t, "POST", "http://site.test/", strings.NewReader(strings.Repeat("x", 100_000)))
			req.ContentLength = length
			if r := do(p, req); r.err != nil {
				t.Fatal(r.err)
			}
			time.Sleep(settled)
		}
		if o.dialled() != 1 {
			t.Errorf("got %d connections, want 1", o.dialled())
		}
	})
}

func TestInterimResponses(t *testing.T) {
	const early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n"
	refusal := errors.New("no more")
	tests := []struct {
		name    string
		expect  bool
		interim string
		refuse  error
		want    string
		kind    string
	}{
		{"relayed", false, early, nil, "102[] 103[</a> </b>] ", ""},
		{"100 on demand", true, early, nil, "100[] 102[] 103[</a> </b>] ", ""},
		{"refused", false, early, refusal, "102[] ", requestError},
		{"sixteen", false, strings.Repeat("HTTP/1.1 102 P\r\n\r\n", maxInterims), nil, strings.Repeat("102[] ", maxInterims), ""},
		{"seventeen", false, strings.Repeat("HTTP/1.1 102 P\r\n\r\n", maxInterims+1), nil, strings.Repeat("102[] ", maxInterims+1), protocolError},
		{"large", false, "HTTP/1.1 102 P\r\nA: " + strings.Repeat("x", 200<<10) + "\r\n\r\nHTTP/1.1 102 P\r\nA: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
			nil, "102[] ", protocolError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{}, func(p *peer) {
				p.head()
				p.send(tt.interim + hello)
				p.drain()
			})
			defer stop()
			var got strings.Builder
			trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				fmt.Fprintf(&got, "%d%s ", code, h["Link"])
				return tt.refuse
			}}
			req := newRequest(t, "POST", "http://site.test/", strings.NewReader("x"))
			if tt.expect {
				req.Header.Set("Expect", "100-continue")
			}
			r := do(p, req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
			if got.String() != tt.want || kind(r.err) != tt.kind || tt.refuse != nil && !errors.Is(r.err, tt.refuse) {
				t.Errorf("got %q, %v, want %q, %q", got.String(), r.err, tt.want, tt.kind)
			}
			if tt.kind == "" && (r.body != "hello" || r.header.Get("Link") != "") {
				t.Errorf("final response: %+v", r)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{Timeouts: Timeouts{Total: time.Minute}}, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
			io.Copy(p.Conn, p.r)
		})
		defer stop()
		req := newRequest(t, "GET", "http://site.test/", nil)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" {
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
		stream, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			t.Fatalf("Body is %T, want an io.ReadWriteCloser", resp.Body)
		}
		b := make([]byte, 100)
		if n, err := stream.Read(b); string(b[:n]) != "first" || err != nil {
			t.Errorf("behind the head: got %q, %v", b[:n], err)
		}
		time.Sleep(time.Hour) // no timeout runs
		go io.WriteString(stream, "echo")
		if n, err := stream.Read(b); string(b[:n]) != "echo" || err != nil {
			t.Errorf("got %q, %v", b[:n], err)
		}
		if st := p.Stats(); st.InFlight != 0 || st.Tunnels != 1 {
			t.Errorf("while open: %+v, want a tunnel, and none in flight", st)
		}
		if err := stream.(interface{ CloseWrite() error }).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("CloseWrite on a pipe: got %v", err)
		}
		stream.Close()
		if st := p.Stats(); st.InFlight != 0 || st.Idle != 0 || st.Tunnels != 0 {
			t.Errorf("closed: %+v", st)
		}
	})
}

func TestUpgradeRefusedByTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, o, stop := pipePool(t, Config{}, answers(hello))
		defer stop()
		for range 2 {
			req := newRequest(t, "GET", "http://site.test/", nil)
			req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
			if r := do(p, req); r.body != "hello" || r.err != nil {
				t.Errorf("got %+v", r)
			}
			time.Sleep(settled)
		}
		if o.dialled() != 1 {
			t.Errorf("got %d connections, want 1", o.dialled())
		}
	})
}
