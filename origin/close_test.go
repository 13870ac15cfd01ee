package origin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestAStalledClientGetsItsAnswer has a net/http server in front, whose bodies'
// Close reads what the client has still to send; the client sends nothing.
func TestAStalledClientGetsItsAnswer(t *testing.T) {
	refuses := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	answer := func(status string) func(*peer) {
		return func(p *peer) {
			p.head()
			p.send("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n")
			p.drain()
		}
	}
	tests := []struct {
		name, field string
		dial        func(context.Context, string, string) (net.Conn, error)
		origin      func(*peer)
		want        int
	}{
		{"origin refuses the connection", "X: y", refuses, nil, 502},
		{"origin refuses the content", "Expect: 100-continue", nil, answer("417 No"), 417},
		{"origin answers early", "X: y", nil, answer("413 Large"), 413},
		{"origin closes", "X: y", nil, func(p *peer) { p.head() }, 502},
		{"request is refused", "X: y", nil, nil, 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{Dial: tt.dial}, tt.origin)
			defer stop()
			took := make(chan time.Duration, 1)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).EnableFullDuplex() // the server itself waits otherwise
				if tt.name == "request is refused" {
					r.RequestURI = "/#"
				}
				start := time.Now()
				result := do(p, r)
				took <- time.Since(start)
				if result.err != nil {
					result.status = 502
				}
				w.Header().Set("Connection", "close")
				w.WriteHeader(result.status)
			}))
			client, err := net.Dial("tcp", front.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			client.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(client, "POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 10\r\n"+tt.field+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(client), nil)
			client.Close()
			front.Close()
			if err != nil {
				t.Fatalf("%s: the client got no answer: %v", tt.name, err)
			}
			// An origin that fails while the body is read is given stopWait.
			if d := <-took; resp.StatusCode != tt.want || d > stopWait+2*time.Second {
				t.Errorf("%s: got %d after %v, want %d promptly", tt.name, resp.StatusCode, d, tt.want)
			}
		})
	}
}

// TestNothingWaitsForABodysClose has bodies whose Close hangs, read and not.
func TestNothingWaitsForABodysClose(t *testing.T) {
	tests := []struct {
		name   string
		origin func(*peer)
		expect bool
		want   int
	}{
		{"not read", func(p *peer) { p.head(); p.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n") }, true, 417},
		{"read to its end", once(hello), false, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, stop := pipePool(t, Config{}, tt.origin)
				defer stop()
				release := make(chan struct{})
				req := newRequest(t, "POST", "http://site.test/", hangsToClose{strings.NewReader("x"), release})
				req.ContentLength = 1
				if tt.expect {
					req.Header.Set("Expect", "100-continue")
				}
				start := time.Now()
				r := do(p, req)
				if d := time.Since(start); r.status != tt.want || r.err != nil || d != 0 {
					t.Errorf("got %+v after %v, want %d at once", r, d, tt.want)
				}
				if st := p.Stats(); st.InFlight != 0 {
					t.Errorf("afterwards: %+v, want none in flight", st)
				}
				close(release)
				synctest.Wait()
			})
		})
	}
}

type hangsToClose struct {
	io.Reader
	release chan struct{}
}

func (h hangsToClose) Close() error { <-h.release; return nil }

// TestNoReadBeginsAfterTheAnswer has a Read outlast the answer and bring nothing.
func TestNoReadBeginsAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			p.drain()
		})
		defer stop()
		release := make(chan struct{})
		body := &tracked{Reader: nothing(release)}
		if r := do(p, newRequest(t, "POST", "http://site.test/", body)); r.status != 413 {
			t.Fatalf("got %+v", r)
		}
		synctest.Wait() // the one Read under way has begun
		before := body.reads.Load()
		close(release)
		synctest.Wait()
		if got := body.reads.Load(); got != before {
			t.Errorf("got %d Reads after the answer, want none", got-before)
		}
	})
}

type nothing chan struct{}

func (n nothing) Read([]byte) (int, error) { <-n; return 0, nil }

// TestTheOriginsFaultIsNotTheBodys has the origin close while a body is awaited
// whose Read then fails because it is closed.
func TestTheOriginsFaultIsNotTheBodys(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"} {
		synctest.Test(t, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{}, func(p *peer) {
				p.head()
				p.send(answer)
				time.Sleep(time.Second)
			})
			defer stop()
			want := connTerminated
			if answer != "" {
				want = responseIncomplete
			}
			if r := do(p, newRequest(t, "POST", "http://site.test/", endless())); kind(r.err) != want {
				t.Errorf("answer %q, then closed: got %v, want %s", answer, r.err, want)
			}
		})
	}
}

// TestAnAnswerMayOutlastARestingBody checks that RequestIdle ends with the head.
func TestAnAnswerMayOutlastARestingBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{Timeouts: Timeouts{RequestIdle: time.Second}}, func(p *peer) {
			p.head()
			p.send(timing)
			time.Sleep(10 * time.Second)
			p.send("0123456789")
		})
		defer stop()
		if r := do(p, newRequest(t, "POST", "http://site.test/", endless())); r.body != "0123456789" || r.err != nil {
			t.Errorf("got %+v", r)
		}
	})
}

// TestPanicsOfTheCallerCostNothing has each of the caller's functions panic.
func TestPanicsOfTheCallerCostNothing(t *testing.T) {
	hints := "HTTP/1.1 103 Hints\r\n\r\n"
	tests := []struct {
		name  string
		cfg   Config
		trace *httptrace.ClientTrace
	}{
		{"Dial", Config{Dial: func(context.Context, string, string) (net.Conn, error) { panic("x") }}, nil},
		{"GotConn", Config{}, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { panic("x") }}},
		{"Got1xxResponse", Config{}, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("x") }}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := 0
				p, o, stop := pipePool(t, tt.cfg, func(p *peer) {
					p.head()
					p.send(hints)
					p.drain()
					ended++
				})
				defer stop()
				body := &tracked{Reader: strings.NewReader("x")}
				req := newRequest(t, "POST", "http://site.test/", body)
				if tt.trace != nil {
					req = req.WithContext(httptrace.WithClientTrace(t.Context(), tt.trace))
				}
				func() {
					defer func() {
						if recover() != "x" {
							t.Error("the panic was lost")
						}
					}()
					p.RoundTrip(req)
				}()
				synctest.Wait()
				if st := p.Stats(); st.InFlight != 0 || st.Idle != 0 || ended != o.dialled() || !body.closed.Load() {
					t.Errorf("%s panics: %+v, %d of %d connections closed, body closed %v", tt.name, st, ended, o.dialled(), body.closed.Load())
				}
			})
		})
	}
}

type panics struct{ read bool }

func (b panics) Read(p []byte) (int, error) {
	if b.read {
		panic("in Read")
	}
	return 0, io.EOF
}

func (b panics) Close() error { panic("in Close") }

func TestPanicsOfABodyAreItsErrors(t *testing.T) {
	for _, tt := range []struct {
		body panics
		kind string
	}{{panics{read: true}, requestError}, {panics{}, ""}} {
		synctest.Test(t, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{}, once(hello))
			defer stop()
			r := do(p, newRequest(t, "POST", "http://site.test/", tt.body))
			if kind(r.err) != tt.kind || tt.kind != "" && !strings.Contains(r.err.Error(), "in Read") {
				t.Errorf("%+v: got %v, want kind %q", tt.body, r.err, tt.kind)
			}
			synctest.Wait()
			if st := p.Stats(); st.InFlight != 0 {
				t.Errorf("%+v: afterwards %+v", tt.body, st)
			}
		})
	}
}

// upgrading asks for a switch to echo.
func upgrading(t *testing.T, wanted string) *http.Request {
	req := newRequest(t, "GET", "http://site.test/", nil)
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {wanted}}
	return req
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

func TestSwitchingProtocols(t *testing.T) {
	tests := []struct{ name, wanted, answer, kind string }{
		{"as asked", "echo", switching, ""},
		{"one of two, in other letters", "x, ECHO", switching, ""},
		{"another", "x", switching, upgradeFailed},
		{"another version", "echo/2", switching, upgradeFailed},
		{"one asked for and one not", "echo", strings.Replace(switching, "echo", "echo, x", 1), upgradeFailed},
		{"none", "echo", strings.Replace(switching, "Upgrade: echo\r\n", "", 1), upgradeFailed},
		{"HTTP/1.0", "echo", strings.Replace(switching, "1.1", "1.0", 1), upgradeFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _, stop := pipePool(t, Config{}, once(tt.answer))
			defer stop()
			resp, err := p.RoundTrip(upgrading(t, tt.wanted))
			if kind(err) != tt.kind {
				t.Errorf("asked for %q, answer %q: got %v, want kind %q", tt.wanted, tt.answer, err, tt.kind)
			}
			if err == nil {
				resp.Body.Close()
			}
			if st := p.Stats(); st.InFlight != 0 || st.Tunnels != 0 {
				t.Errorf("afterwards: %+v", st)
			}
		})
	}
}

// TestTunnelsHaveTheirOwnLimit checks that they leave room for ordinary
// requests, and are counted.
func TestTunnelsHaveTheirOwnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{MaxInFlight: 1, MaxTunnels: 2}, func(p *peer) {
			if strings.Contains(p.head(), "Upgrade") {
				p.send(switching)
			} else {
				p.send(hello)
			}
			p.drain()
		})
		defer stop()
		var open []io.Closer
		for range 2 {
			resp, err := p.RoundTrip(upgrading(t, "echo"))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp.Body)
		}
		if r := get(t, p); r.body != "hello" {
			t.Errorf("beside two tunnels: got %+v", r)
		}
		if r := do(p, upgrading(t, "echo")); kind(r.err) != connLimit {
			t.Errorf("a third tunnel: got %+v, want %s", r, connLimit)
		}
		if st := p.Stats(); st.Tunnels != 2 || st.InFlight != 0 {
			t.Errorf("got %+v, want 2 tunnels", st)
		}
		for _, c := range open {
			c.Close()
			c.Close()
		}
		if st := p.Stats(); st.Tunnels != 0 {
			t.Errorf("closed: %+v, want no tunnels", st)
		}
		resp, err := p.RoundTrip(upgrading(t, "echo"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
}

func TestWritesToATunnelAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, stop := pipePool(t, Config{}, func(p *peer) {
			p.head()
			p.send(switching)
			time.Sleep(time.Hour) // reads no more
		})
		defer stop()
		resp, err := p.RoundTrip(upgrading(t, "echo"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(time.Minute) // a rest is no fault
		start := time.Now()
		_, err = resp.Body.(io.Writer).Write([]byte("x"))
		if d := time.Since(start); !isTimeout(err) || d != 30*time.Second {
			t.Errorf("got %v after %v, want a timeout after 30s", err, d)
		}
	})
}

// TestUpgradesDoNotAskToClose: some servers upgrade only where Upgrade stands
// alone.
func TestUpgradesDoNotAskToClose(t *testing.T) {
	got, err := sent(t, Config{MaxIdle: -1}, upgrading(t, "echo"), 0)
	if !strings.Contains(got, "\r\nConnection: Upgrade\r\n") || err != nil {
		t.Errorf("got %q, %v, want Connection: Upgrade", got, err)
	}
}

// TestATimeoutAnswerIsRetriedOnlyBeforeTheContent: a 408 to a request whose content has
// begun is the client's to see, and is not retried.
func TestATimeoutAnswerIsRetriedOnlyBeforeTheContent(t *testing.T) {
	const timeout = "HTTP/1.1 408 T\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name    string
		expect  bool
		status  int
		retries uint64
	}{{"content held back", true, 200, 1}, {"content sent", false, 408, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, stop := pipePool(t, Config{}, func(p *peer) {
					p.request()
					p.send(hello)
					p.head()
					if !tt.expect {
						p.read(1)
					}
					p.send(timeout)
				}, answers(hello))
				defer stop()
				get(t, p)
				time.Sleep(settled)
				req := newRequest(t, "PUT", "http://site.test/", strings.NewReader("x"))
				if tt.expect {
					req.Header.Set("Expect", "100-continue")
				}
				r := do(p, req)
				var e *Error
				if st := p.Stats(); errors.As(r.err, &e) || r.status != tt.status || st.Retries != tt.retries {
					t.Errorf("got %+v, %+v, want %d after %d retries", r, st, tt.status, tt.retries)
				}
			})
		})
	}
}
