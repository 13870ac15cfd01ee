package listen

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
)

// behaviour is what every protocol must do alike: handle answers, and ask
// returns what the client saw.
type behaviour struct {
	name   string
	handle func(b *bench, w http.ResponseWriter, r *http.Request)
	ask    func(b *bench) string
	want   string
}

// bench joins the two ends of one exchange.
type bench struct {
	t      *testing.T
	client *http.Client
	url    string
	on     chan string // between ask and handle
}

func (b *bench) do(method, path string, body io.Reader, set ...func(*http.Request)) (*http.Response, error) {
	r, err := http.NewRequest(method, b.url+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range set {
		f(r)
	}
	return b.client.Do(r)
}

// told renders an answer: its status and content, and how that ended.
func told(res *http.Response, err error) string {
	if err != nil {
		return "broken"
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Sprintf("%d %q broken", res.StatusCode, body)
	}
	return fmt.Sprintf("%d %q", res.StatusCode, body)
}

func field(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// onlyReader hides what a body is, so that its length is not known.
type onlyReader struct{ io.Reader }

var behaviours = []behaviour{
	{"content of known and unknown length", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		all, err := io.ReadAll(r.Body)
		fmt.Fprint(w, r.ContentLength, " ", string(all), err)
	}, func(b *bench) string {
		return told(b.do("POST", "/", strings.NewReader("12345"))) + told(b.do("POST", "/", onlyReader{strings.NewReader("12345")})) +
			told(b.do("GET", "/", nil)) + told(b.do("DELETE", "/", nil)) + told(b.do("GET", "/", onlyReader{strings.NewReader("12")}))
	}, `200 "5 12345<nil>"200 "-1 12345<nil>"200 "0 <nil>"200 "0 <nil>"200 "-1 12<nil>"`},

	{"trailers both ways", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Declared")
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "body")
		w.Header().Set("X-Declared", r.Trailer.Get("X-Sent"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	}, func(b *bench) string {
		res, err := b.do("POST", "/", onlyReader{strings.NewReader("up")}, func(r *http.Request) { r.Trailer = http.Header{"X-Sent": {"sent"}} })
		return told(res, err) + " " + res.Trailer.Get("X-Declared") + " " + res.Trailer.Get("X-Late")
	}, `200 "body" sent late`},

	{"103 then 200", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "done")
	}, func(b *bench) string {
		var hints string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints += fmt.Sprint(code, h.Get("Link"))
			return nil
		}}
		res, err := b.do("GET", "/", nil, func(r *http.Request) { *r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace)) })
		return hints + " " + told(res, err) + res.Header.Get("Link")
	}, `103</a>; rel=preload 200 "done"`},

	{"a response comes as it is flushed", func(b *bench, w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprint(w, i)
			w.(http.Flusher).Flush()
			<-b.on
		}
	}, func(b *bench) string {
		res, err := b.do("GET", "/", nil)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		got := make([]byte, 3)
		for i := range got {
			io.ReadFull(res.Body, got[i:i+1])
			b.on <- "next"
		}
		rest, err := io.ReadAll(res.Body)
		return fmt.Sprint(string(got), len(rest), err)
	}, "0120 <nil>"},

	{"content and answer at once", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.ProtoMajor == 1 {
			rc.EnableFullDuplex()
		}
		rc.Flush()
		part := make([]byte, 16)
		for {
			n, err := r.Body.Read(part)
			w.Write(bytes.ToUpper(part[:n]))
			rc.Flush()
			if err != nil {
				return
			}
		}
	}, func(b *bench) string {
		r, w := io.Pipe()
		res, err := b.do("POST", "/", r)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		var got string
		for _, s := range []string{"ab", "cd", "ef"} {
			io.WriteString(w, s)
			part := make([]byte, 2)
			io.ReadFull(res.Body, part)
			got += string(part)
		}
		w.Close()
		rest, err := io.ReadAll(res.Body)
		return fmt.Sprint(got, string(rest), err)
	}, "ABCDEF<nil>"},

	{"HEAD", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "5")
		}
		w.WriteHeader(200)
	}, func(b *bench) string {
		known, err := b.do("HEAD", "/known", nil)
		if err != nil {
			return err.Error()
		}
		unknown, err := b.do("HEAD", "/unknown", nil)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(known.Header["Content-Length"], unknown.Header["Content-Length"], told(known, nil), told(unknown, nil))
	}, `[5] []200 ""200 ""`},

	{"fields of a connection stay on it", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proxy-Connection", "x")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-Kept", "yes")
		if r.ProtoMajor == 1 { // of HTTP/1.1 they are the handler's business
			w.Header().Del("Proxy-Connection")
			w.Header().Del("Keep-Alive")
		} else {
			w.Header().Set("Connection", "x-kept")
		}
	}, func(b *bench) string {
		res, err := b.do("GET", "/", nil)
		if err != nil {
			return err.Error()
		}
		h := res.Header
		return told(res, nil) + h.Get("Connection") + h.Get("Proxy-Connection") + h.Get("Keep-Alive") + h.Get("X-Kept")
	}, `200 ""yes`},

	{"a range passes", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 2-4/9")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, r.Header.Get("Range"))
	}, func(b *bench) string {
		res, err := b.do("GET", "/", nil, field("Range", "bytes=2-4"))
		return told(res, err) + res.Header.Get("Content-Range")
	}, `206 "bytes=2-4"bytes 2-4/9`},

	{"statuses without content", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"a"`)
		w.WriteHeader(map[string]int{"/204": 204, "/304": 304}[r.URL.Path])
	}, func(b *bench) string { return told(b.do("GET", "/204", nil)) + told(b.do("GET", "/304", nil)) }, `204 ""304 ""`},

	{"a large head", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Get("X-A"))+len(r.Header.Get("X-B")), " ", len(r.RequestURI))
	}, func(b *bench) string {
		return told(b.do("GET", "/"+strings.Repeat("u", 8<<10), nil, field("X-A", strings.Repeat("a", 24<<10)), field("X-B", strings.Repeat("b", 24<<10))))
	}, `200 "49152 8193"`},

	{"100-continue", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	}, func(b *bench) string {
		return told(b.do("PUT", "/", strings.NewReader("content"), field("Expect", "100-continue")))
	}, `200 "content"`},

	{"an aborted answer is never cleanly ended", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "100")
		}
		io.WriteString(w, "part")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/panic" {
			panic("boom")
		}
		panic(http.ErrAbortHandler)
	}, func(b *bench) string {
		got := ""
		for _, path := range []string{"/known", "/unknown", "/panic"} {
			_, how, _ := strings.Cut(told(b.do("GET", path, nil)), `" `)
			if how == "" {
				how = "broken" // before its content came
			}
			got += how + " "
		}
		return got
	}, "broken broken broken "},

	{"an answer aborted before it began", func(_ *bench, w http.ResponseWriter, r *http.Request) {
		panic(http.ErrAbortHandler)
	}, func(b *bench) string { return told(b.do("POST", "/", onlyReader{strings.NewReader("x")})) }, "broken"},

	{"the handler sees that the client gave up", func(b *bench, w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		b.on <- r.Context().Err().Error()
	}, func(b *bench) string {
		ctx, cancel := context.WithCancel(context.Background())
		res, err := b.do("GET", "/", nil, func(r *http.Request) { *r = *r.WithContext(ctx) })
		cancel()
		if err == nil {
			res.Body.Close()
		}
		return <-b.on
	}, "context canceled"},
}

// Every protocol gives the same answers.
func TestProtocolsBehaveAlike(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			var now atomic.Pointer[behaviour]
			b := &bench{t: t, on: make(chan string)}
			n := startFull(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().handle(b, w, r) })})
			b.client, b.url = p.client(t, n)
			for i := range behaviours {
				c := &behaviours[i]
				now.Store(c)
				if got := c.ask(b); got != c.want {
					t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
				}
			}
			if got := n.seen(Panicked); got < 1 { // a client may ask again
				t.Errorf("counted %d panics, want one at least", got)
			}
			if got := n.seen(Malformed); got != 0 {
				t.Errorf("counted %d malformed, want 0; log:\n%s", got, n.logged())
			}
		})
	}
}
