package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// streams is an origin of events and calls over every protocol. It sends the
// next event when it is told.
type streams struct {
	next map[string]chan struct{} // by protocol, as are
	urls map[string]string        // its URLs
	ca   string                   // the path of what vouches for it, as example.com
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if r.Method == http.MethodPost {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_ = rc.EnableFullDuplex() // only HTTP/1 needs it
		_ = rc.Flush()
		part := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, part); err != nil {
				break
			}
			fmt.Fprintf(w, "%s;", part)
			_ = rc.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		return
	}
	next := s.next[strings.Split(r.URL.Path, "/")[1]]
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Proto", r.Proto)
	_ = rc.Flush()
	for i := range 3 {
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "data: %d\n\n", i)
		_ = rc.Flush()
	}
}

func newStreams(t *testing.T) *streams {
	s := &streams{next: make(map[string]chan struct{}), urls: make(map[string]string), ca: filepath.Join(t.TempDir(), "ca.pem")}
	clear := httptest.NewUnstartedServer(s)
	clear.Config.Protocols = inClear()
	clear.Start()
	t.Cleanup(clear.Close)
	secure := httptest.NewUnstartedServer(s)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	third := &http3.Server{Handler: s, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: secure.TLS.Certificates})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = third.Serve(socket) }()
	t.Cleanup(func() { third.Close(); socket.Close(); <-ended })
	for _, protocol := range []string{"h1", "h2c", "h2", "h3"} {
		s.next[protocol] = make(chan struct{})
	}
	s.urls = map[string]string{"h1": clear.URL, "h2c": clear.URL, "h2": secure.URL, "h3": "https://" + socket.LocalAddr().String()}
	return s
}

// settings are of a node with a site that has each protocol under its own path.
func (s *streams) settings(t *testing.T) *settings {
	text := fmt.Sprintf("sites:\n- origins: [%q]\n  origin_tls: {ca: %q, server_name: example.com}\n  routes:\n", s.urls["h1"], s.ca)
	for protocol, url := range s.urls {
		text += fmt.Sprintf("  - {prefix: /%s, origins: [{url: %q, protocol: %s}]}\n", protocol, url, protocol)
	}
	c := configured(t, "%s", text)
	c.Listen.HTTPS = "127.0.0.1:0"
	return c
}

// Events come one by one, and calls go both ways with trailers behind, from
// every protocol of origins to every protocol of clients.
func TestStreamsThroughEveryProtocol(t *testing.T) {
	s := newStreams(t)
	n, _, _ := nodeOf(t, s.settings(t))
	front := n.secureURL()
	protos := map[string]string{"h1": "HTTP/1.1", "h2c": "HTTP/2.0", "h2": "HTTP/2.0", "h3": "HTTP/3.0"}
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		for protocol := range s.urls {
			res, err := c.Do(request("GET", front+"/"+protocol+"/events"))
			if err != nil {
				t.Fatalf("events from %s: %v", protocol, err)
			}
			if got := res.Header.Get("Proto"); got != protos[protocol] || res.Proto != proto {
				t.Errorf("events from %s: by %s to the origin and %s to the client, want %s and %s", protocol, got, res.Proto, protos[protocol], proto)
			}
			s.events(t, protocol, res.Body)
			res.Body.Close()
			s.call(t, c, front+"/"+protocol+"/call", proto != "HTTP/1.1")
		}
	})
	for _, o := range n.listOrigins() {
		if o.InFlight != 0 || o.Tunnels != 0 {
			t.Errorf("afterwards %s has %d in flight", o.Name, o.InFlight)
		}
	}
}

// events reads all events; each is sent only when the one before it
// has come.
func (s *streams) events(t *testing.T, name string, from io.Reader) {
	t.Helper()
	for i := range 3 {
		select {
		case s.next[name] <- struct{}{}:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for no word to send event %d", name, i)
		}
		want := fmt.Sprintf("data: %d\n\n", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
			t.Fatalf("event %d of %s: got %q, %v; want %q", i, name, got, err, want)
		}
	}
	if rest, err := io.ReadAll(from); err != nil || len(rest) > 0 {
		t.Errorf("behind the events of %s: got %q, %v; want the end", name, rest, err)
	}
}

// call sends two parts; duplex waits for the echo of the first before the
// second.
func (s *streams) call(t *testing.T, c *http.Client, url string, duplex bool) {
	t.Helper()
	r := request("POST", url, "Content-Type", "application/grpc", "Te", "trailers")
	read, write := io.Pipe()
	if r.Body = read; !duplex {
		r.Body = io.NopCloser(strings.NewReader("pingpong"))
	}
	r.ContentLength = -1
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer res.Body.Close()
	for _, part := range []string{"ping", "pong"} {
		if duplex {
			if _, err := io.WriteString(write, part); err != nil {
				t.Fatalf("%s: %v", url, err)
			}
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != part+";" {
			t.Fatalf("%s after %s: got %q, %v", url, part, got, err)
		}
	}
	write.Close()
	rest, err := io.ReadAll(res.Body)
	if err != nil || len(rest) > 0 || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%s at the end: got %q, %v and trailers %v; want Grpc-Status 0", url, rest, err, res.Trailer)
	}
}

// A node that drains lets streams go on to their end.
func TestDrainWaitsForStreams(t *testing.T) {
	s := newStreams(t)
	eachProtocol(t, func(t *testing.T, proto string, c *http.Client) {
		d, err := openData("")
		if err != nil {
			t.Fatal(err)
		}
		n, err := newNode(s.settings(t), d, &terminal{io.Discard, new(output)})
		if err != nil {
			t.Fatal(err)
		}
		ends := n.serve()
		open := make(map[string]io.ReadCloser)
		for protocol := range s.urls {
			res, err := c.Do(request("GET", n.secureURL()+"/"+protocol+"/events"))
			if err != nil {
				t.Fatalf("events from %s: %v", protocol, err)
			}
			defer res.Body.Close()
			open[protocol] = res.Body
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		drained := make(chan struct{})
		go func() { defer close(drained); n.drain(ctx) }()
		for n.ready() == nil {
			runtime.Gosched()
		}
		for protocol, from := range open {
			s.events(t, protocol, from)
		}
		<-drained
		if ctx.Err() != nil {
			t.Error("the drain took all of its time, though the streams had ended")
		}
		for range 2 {
			if err := <-ends; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
}
