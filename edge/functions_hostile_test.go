package edge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"seawall/wasm/abi"
)

// Both the client's leaving and the walk close an origin's response.
func TestOriginFunctionsCloseOnce(t *testing.T) {
	w := withFunctions(t, &echo{}, nil, []program{{lines: "response x-made here\n"}}, nil)
	s := w.sites.of("example.com")
	for range 100 {
		out, err := http.NewRequest("GET", "http://example.com/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		out.RequestURI = "/a"
		resp, err := s.roundTrip(out, Hint{}, &abi.Facts{Begun: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() { resp.Body.Close() })
		}
		wait.Wait()
	}
	if resp, body := w.ask(t, "GET", "/b"); resp.Header.Get("X-Made") != "here" {
		t.Errorf("afterwards: got %d %q, %v", resp.StatusCode, body, resp.Header)
	}
}

// The walk still writes when a function of the content has failed.
func TestFunctionsFailWhileTheWalkWrites(t *testing.T) {
	long := strings.Repeat("a line of text\n", 20_000)
	o := rt(func(r *http.Request) (*http.Response, error) {
		return resp(r, long, "Cache-Control", "max-age=60"), nil
	})
	w := withFunctions(t, o, []program{{lines: "trap response /a\n", content: true}}, nil, nil)
	for i := range 3 {
		if resp, body := w.ask(t, "GET", "/a"); resp.StatusCode != 503 || strings.Contains(body, "line") {
			t.Errorf("%d: got %d, %d bytes, want 503", i, resp.StatusCode, len(body))
		}
	}
}

// A client that offers to upgrade does not get round a function of content.
func TestUpgradeDoesNotHideContent(t *testing.T) {
	o := &echo{terms: "no-store"}
	w := withFunctions(t, o, []program{{lines: "upper\n", content: true}}, nil, nil)
	for i, fields := range [][]string{nil, {"Connection", "Upgrade", "Upgrade", "anything"}} {
		if resp, body := w.ask(t, "GET", "/secret", fields...); resp.StatusCode != 200 || strings.Contains(body, "secret") {
			t.Errorf("%d: %v: got %d %q, want the content in upper case", i, fields, resp.StatusCode, body)
		}
	}
}

// What a function answers while it sees the request's content is what the
// client gets.
func TestFunctionsAnswerAtTheContent(t *testing.T) {
	for _, place := range []string{"viewer", "origin"} {
		o := rt(func(r *http.Request) (*http.Response, error) {
			content, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil {
				return nil, errors.New("sending: " + err.Error())
			}
			return resp(r, fmt.Sprint(len(content)), "Cache-Control", "no-store"), nil
		})
		list := []program{{lines: "deny attack\nresponse x-seen yes\n", content: true}}
		viewer, origin := list, []program(nil)
		if place == "origin" {
			viewer, origin = nil, list
		}
		w := withFunctions(t, o, viewer, origin, nil)
		for _, step := range []struct {
			content, want string
			code          int
		}{
			{"good", "4", 200},
			{"an attack", "not this\n", 403},
			{strings.Repeat("x", 100_000) + "an attack", "not this\n", 403},
			{"good", "4", 200},
		} {
			resp, body := w.send(t, "POST", "/a", step.content)
			if resp.StatusCode != step.code || body != step.want || resp.Header.Get("X-Seen") != "yes" {
				t.Errorf("%s: %.10q: got %d %.40q, %v; want %d %q", place, step.content, resp.StatusCode, body, resp.Header, step.code, step.want)
			}
		}
	}
}

// No function can let a request go in circles, at the origin's side either.
func TestOriginFunctionsCannotHideLoops(t *testing.T) {
	var got http.Header
	o := rt(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Clone()
		return resp(r, "x"), nil
	})
	w := withFunctions(t, o, nil, []program{{lines: "request cdn-loop nobody\nrequest via nobody\n"}}, nil)
	w.ask(t, "GET", "/a")
	if loop, via := got.Get("Cdn-Loop"), got.Get("Via"); loop != "seawall; node=seawall" || via != "1.1 seawall" {
		t.Errorf("CDN-Loop %q, Via %q", loop, via)
	}
}

// The node frames the content that it sends, whatever guests say of it.
func TestFunctionsDoNotFrame(t *testing.T) {
	for _, place := range []string{"viewer", "origin"} {
		for _, size := range []int64{5, -1} {
			o := rt(func(r *http.Request) (*http.Response, error) {
				q := resp(r, "whole", "Cache-Control", "no-store")
				q.ContentLength = size
				return q, nil
			})
			list := []program{{lines: "response content-length 3\nresponse trailer x\nresponse x-seen yes\n"}}
			viewer, origin := list, []program(nil)
			if place == "origin" {
				viewer, origin = nil, list
			}
			w := withFunctions(t, o, viewer, origin, nil)
			server := httptest.NewServer(w.Handler)
			r, _ := http.NewRequest("GET", server.URL+"/a", nil)
			r.Host = "example.com"
			resp, err := server.Client().Transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			server.Close()
			if err != nil || string(body) != "whole" || resp.Header.Get("X-Seen") != "yes" {
				t.Errorf("%s, length %d: got %q, %v, %v; want the whole", place, size, body, err, resp.Header)
			}
		}
	}
}

// An upgrade goes through functions of content, which have none to see.
func TestUpgradeThroughFunctions(t *testing.T) {
	o := rt(func(r *http.Request) (*http.Response, error) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.Copy(far, far) // echo until the end
			far.Close()
		}()
		q := resp(r, "", "Connection", "Upgrade", "Upgrade", "echo")
		q.StatusCode, q.Body = http.StatusSwitchingProtocols, near
		return q, nil
	})
	w := withFunctions(t, o, []program{{lines: "upper\nresponse x-seen yes\n", content: true}}, []program{{lines: "upper\n", content: true}}, nil)
	server := httptest.NewServer(w.Handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Upgrade") != "echo" {
		t.Fatalf("got %+v, %v; want 101 to echo", answer, err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
		t.Errorf("through the tunnel: got %q, %v, want hello", got, err)
	}
}

// What belongs to the connection is the node's to say, whatever a guest's host
// let through: what was there of it stays, all else goes.
func TestFunctionsSayNothingOfTheConnection(t *testing.T) {
	names := []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
	for _, name := range append(names, "X-Plain") {
		for _, closing := range [][]string{nil, {"close"}} {
			out := httptest.NewRecorder()
			h := out.Header()
			w := &functionWriter{ResponseWriter: out, header: h, closing: closing}
			if closing != nil {
				h["Connection"] = closing
			}
			h[name] = []string{"the guest's"}
			h["X-Other"] = []string{"stays"}
			w.writeHead(&abi.Message{Status: 200, Header: h, Changed: true})
			got, want := out.Result().Header, http.Header{"X-Other": {"stays"}}
			if name == "X-Plain" {
				want[name] = []string{"the guest's"}
			}
			if closing != nil {
				want["Connection"] = closing
			}
			delete(got, "Content-Type")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, closing %v: got %v, want %v", name, closing, got, want)
			}
		}
	}
}
