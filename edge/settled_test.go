package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

// lateEnd is content whose end is told by a Read of its own, of which the test
// is told before.
type lateEnd struct {
	io.Reader
	before func()
}

func (b *lateEnd) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n == 0 && err == io.EOF {
		b.before()
	}
	return n, err
}

// askedWhenWhole is a client that asks once more as soon as it has all that
// Content-Length promised.
type askedWhenWhole struct {
	*httptest.ResponseRecorder
	want  int
	whole chan struct{}
}

func (w *askedWhenWhole) Write(p []byte) (int, error) {
	n, err := w.ResponseRecorder.Write(p)
	if w.want -= n; w.want == 0 {
		close(w.whole)
	}
	return n, err
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Who has all of a response finds it stored: a request that follows is a hit,
// and never one that waits for the end of the fetch before.
func TestWhoHasAllFindsItStored(t *testing.T) {
	for _, size := range []int{1, 5000, 64 << 10, 64<<10 + 1, 200_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text := strings.Repeat("x", size)
				first := &askedWhenWhole{httptest.NewRecorder(), size, make(chan struct{})}
				early := false
				origin := roundTrip(func(r *http.Request) (*http.Response, error) {
					body := &lateEnd{Reader: strings.NewReader(text), before: func() {
						synctest.Wait() // the client gets what it can get
						select {
						case <-first.whole:
							early = true // the client could ask before the end was known
						default:
						}
					}}
					return &http.Response{
						StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(size), Request: r,
						Header: http.Header{"Cache-Control": {"max-age=60"}}, Body: io.NopCloser(body),
					}, nil
				})
				st, err := NewStore(StoreOptions{Memory: 64 << 20})
				if err != nil {
					t.Fatal(err)
				}
				defer st.Close()
				h, err := New(Config{Store: st, Sites: []Site{{Name: "one", Origin: origin}}})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					h.ServeHTTP(first, request(1))
				}()
				<-first.whole
				second := httptest.NewRecorder()
				h.ServeHTTP(second, request(1))
				<-answered
				if got := second.Header().Get("Cache-Status"); !strings.HasPrefix(got, "seawall; hit") || early {
					t.Errorf("asked again: got %q, before the end was known: %v; want a hit", got, early)
				}
				if second.Body.String() != text || first.Body.String() != text {
					t.Errorf("got %d and %d bytes, want %d", first.Body.Len(), second.Body.Len(), size)
				}
			})
		})
	}
}
