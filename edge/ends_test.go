package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dripping is content that comes a byte a second, until its request ends.
type dripping struct {
	ctx    context.Context
	left   string
	breaks any // what it panics with at its end, nil for none
	closed bool
	mu     sync.Mutex
}

func (b *dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case len(b.left) > 0:
		n := copy(p[:1], b.left)
		b.left = b.left[n:]
		return n, nil
	case b.breaks != nil:
		panic(b.breaks)
	}
	return 0, io.EOF
}

func (b *dripping) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// reply is what an origin says after a second.
type reply struct {
	status  int
	control string
	tag     string
	breaks  any
	err     error
}

// asked is an origin that notes what it was asked and gave.
type asked struct {
	replies []reply
	mu      sync.Mutex
	all     []context.Context
	bodies  []*dripping
}

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	n := len(a.all)
	a.all = append(a.all, r.Context())
	a.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	is := a.replies[min(n, len(a.replies)-1)]
	if is.err != nil {
		return nil, is.err
	}
	if is.status == 0 {
		panic(is.breaks)
	}
	q := resp(r, "", "Cache-Control", is.control, "Etag", is.tag)
	if q.StatusCode = is.status; is.status == http.StatusNotModified {
		q.Body = http.NoBody
		return q, nil
	}
	body := &dripping{ctx: r.Context(), left: "content", breaks: is.breaks}
	a.mu.Lock()
	a.bodies = append(a.bodies, body)
	a.mu.Unlock()
	q.Body, q.ContentLength = body, int64(len(body.left))
	if is.breaks != nil {
		q.ContentLength++
	}
	return q, nil
}

// visit is one client, that begins and leaves at seconds of the story; 0 is
// that it stays. want is what it gets, "" for one that must not get all.
type visit struct {
	begins, leaves int
	want           string
}

// Requests to the origin go on for as long as anybody needs their answer, and
// end with it: else each would be kept by the store's context for ever.
func TestRequestsToTheOriginEndWithTheirAnswers(t *testing.T) {
	const kept, stale, own = "max-age=1000", "max-age=20, stale-while-revalidate=1000, stale-if-error=1000", "private"
	all := visit{want: "content"}
	again := visit{begins: 100, want: "content"}
	for _, test := range []struct {
		name    string
		replies []reply
		visits  []visit
		asks    int
	}{
		{"stored", []reply{{200, kept, `"1"`, nil, nil}}, []visit{all, again}, 1},
		{"the first leaves before the head", []reply{{200, kept, `"1"`, nil, nil}}, []visit{{0, 1, ""}, again}, 1},
		{"the first leaves, another follows", []reply{{200, kept, `"1"`, nil, nil}}, []visit{{0, 4, ""}, {begins: 2, want: "content"}, again}, 1},
		{"all leave, and it is stored", []reply{{200, kept, `"1"`, nil, nil}}, []visit{{0, 3, ""}, {1, 4, ""}, again}, 1},
		{"private", []reply{{200, own, `"1"`, nil, nil}}, []visit{all}, 1},
		{"private, its client leaves before the head", []reply{{200, own, `"1"`, nil, nil}}, []visit{{0, 1, ""}}, 1},
		{"private, its client leaves", []reply{{200, own, `"1"`, nil, nil}}, []visit{{0, 5, ""}}, 1},
		{"private, one goes alone", []reply{{200, own, `"1"`, nil, nil}}, []visit{{0, 5, ""}, all}, 2},
		{"confirmed", []reply{{200, "max-age=20", `"1"`, nil, nil}, {304, kept, `"1"`, nil, nil}}, []visit{all, again}, 2},
		{"confirmed, and not to be kept", []reply{{200, "max-age=20", `"1"`, nil, nil}, {304, "no-store", `"1"`, nil, nil}}, []visit{all, again}, 2},
		{"confirmed, not to be kept, nobody there", []reply{{200, "max-age=20", `"1"`, nil, nil}, {304, "no-store", `"1"`, nil, nil}}, []visit{all, {100, 101, ""}}, 2},
		{"another is confirmed", []reply{{200, "max-age=20", `"1"`, nil, nil}, {304, kept, `"2"`, nil, nil}, {200, kept, `"2"`, nil, nil}}, []visit{all, again}, 3},
		{"renewed behind", []reply{{200, stale, `"1"`, nil, nil}, {200, kept, `"2"`, nil, nil}}, []visit{all, again}, 2},
		{"private behind", []reply{{200, stale, `"1"`, nil, nil}, {200, own, `"2"`, nil, nil}}, []visit{all, again}, 2},
		{"an error behind", []reply{{200, stale, `"1"`, nil, nil}, {500, own, `"2"`, nil, nil}}, []visit{all, again}, 2},
		{"an error", []reply{{200, "max-age=20, stale-if-error=1000", `"1"`, nil, nil}, {503, own, `"2"`, nil, nil}}, []visit{all, again}, 2},
		{"no answer", []reply{{err: errors.New("none")}}, []visit{{want: "502 Bad Gateway\n"}}, 1},
		{"asking panics", []reply{{breaks: "asking"}}, []visit{{want: "503 Service Unavailable\n"}}, 1},
		{"content panics", []reply{{200, kept, `"1"`, "content", nil}}, []visit{{want: "content, broken off"}}, 1},
		{"private content panics", []reply{{200, own, `"1"`, "content", nil}}, []visit{{want: "content, broken off"}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &asked{replies: test.replies}
				h := walkHandler(t, o.RoundTrip, StoreOptions{}, nil)
				var wait sync.WaitGroup
				for i, v := range test.visits {
					wait.Go(func() {
						if got := v.get(h); got != v.want && (v.want != "" || got == "content") {
							t.Errorf("client %d got %q, want %q", i, got, v.want)
						}
					})
				}
				wait.Wait()
				h.wait.Wait() // what goes on behind
				o.mu.Lock()
				for i, ctx := range o.all {
					if ctx.Err() == nil {
						t.Errorf("request %d of %d is not over", i, len(o.all))
					}
				}
				for i, b := range o.bodies {
					b.mu.Lock()
					if !b.closed {
						t.Errorf("content %d of %d is left open", i, len(o.bodies))
					}
					b.mu.Unlock()
				}
				if len(o.all) != test.asks {
					t.Errorf("the origin was asked %d times, want %d", len(o.all), test.asks)
				}
				o.mu.Unlock()
				h.Close()
				h.Store.Close()
			})
		})
	}
}

// get returns what the client has when the exchange ends.
func (v visit) get(h *Handler) (got string) {
	<-time.After(time.Duration(v.begins)*time.Second + time.Duration(v.begins)*time.Millisecond)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	if v.leaves > 0 {
		time.AfterFunc(time.Duration(v.leaves-v.begins)*time.Second-time.Millisecond, leave)
	}
	w := httptest.NewRecorder()
	defer func() {
		if got = w.Body.String(); recover() != nil { // as net/http does
			got += ", broken off"
		}
	}()
	h.ServeHTTP(w, request(1).WithContext(ctx))
	return ""
}
