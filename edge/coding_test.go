package edge

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"seawall/edge/encode"
	"seawall/purge"
)

// page is HTML of about n bytes, with text that does not repeat word by word.
func page(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through")
	var b strings.Builder
	b.WriteString("<!doctype html><title>A page</title>\n")
	for b.Len() < n {
		fmt.Fprintf(&b, "<p class=\"c%d\"><a href=\"/item/%x\">", r.IntN(9), r.Uint32())
		for range 5 + r.IntN(20) {
			b.WriteString(words[r.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteString("</a></p>\n")
	}
	return b.String()[:n]
}

// undo decodes with the libraries themselves.
func undo(t testing.TB, coding string, coded []byte) string {
	t.Helper()
	var from io.Reader = bytes.NewReader(coded)
	switch coding {
	case "":
	case "br":
		from = brotli.NewReader(from)
	case "gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			t.Errorf("%s: %v", coding, err)
			return ""
		}
		from = z
	case "zstd":
		z, err := zstd.NewReader(from)
		if err != nil {
			t.Errorf("%s: %v", coding, err)
			return ""
		}
		defer z.Close()
		from = z
	}
	text, err := io.ReadAll(from)
	if err != nil {
		t.Errorf("%s of %d bytes: %v", coding, len(coded), err)
	}
	return string(text)
}

// askIn sends a GET with an Accept-Encoding, "" for none.
func askIn(h http.Handler, target, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	if accept != "" {
		r.Header.Set("Accept-Encoding", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func codingHandler(t testing.TB, origin http.RoundTripper, change func(*Config)) *Handler {
	t.Helper()
	st, err := NewStore(StoreOptions{Memory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Store: st, Sites: []Site{{Name: "s", Origin: origin, Encode: new(Encode)}}}
	if change != nil {
		change(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); st.Close() })
	return h
}

func html(body string) answers {
	return answers{header: http.Header{
		"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}, "Etag": {`"v1"`},
		"Date": {time.Now().UTC().Format(http.TimeFormat)},
	}, body: body}
}

// Real clients' fields: curl 8 with --compressed, Chrome, Firefox and Safari,
// each over TLS and in the clear where they differ.
var realAccepts = [...]string{
	"deflate, gzip, br, zstd", "gzip, deflate, br, zstd", "gzip, deflate", "gzip, deflate, br", "",
}

func TestRealClientsShareFourRepresentations(t *testing.T) {
	body := page(20 << 10)
	h := codingHandler(t, html(body), nil)
	for range 3 {
		for _, accept := range realAccepts {
			w := askIn(h, "http://example.com/", accept)
			if got := undo(t, w.Header().Get("Content-Encoding"), w.Body.Bytes()); got != body {
				t.Errorf("%q: %s of %d bytes decodes to %d, want the %d of the page", accept, w.Header().Get("Content-Encoding"), w.Body.Len(), len(got), len(body))
			}
		}
	}
	stored, err := h.Stored("http://example.com/")
	if err != nil || len(stored) != 1 {
		t.Fatalf("stored %+v, %v; want one object", stored, err)
	}
	if n := 1 + len(stored[0].Codings); n > 4 || n < 2 {
		t.Errorf("kept as identity and %+v, want at most four in all", stored[0].Codings)
	}
	if n := h.Stats.Encode.Demands.Load(); n != uint64(len(stored[0].Codings)) {
		t.Errorf("%d codings were made, %d are kept", n, len(stored[0].Codings))
	}
}

func TestNoCoderFreeSendsIdentity(t *testing.T) {
	body := page(20 << 10)
	coders := encode.NewCoders(1, 0)
	h := codingHandler(t, html(body), func(c *Config) { c.Coders = coders })
	busy, ok := coders.Acquire(encode.Gzip, encode.Unknown, io.Discard)
	if !ok {
		t.Fatal("no coder")
	}
	w := askIn(h, "http://example.com/", "br")
	if got := w.Header().Get("Content-Encoding"); got != "" || w.Body.String() != body || w.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("Content-Encoding %q, Vary %q, %d bytes; want identity that varies", got, w.Header().Get("Vary"), w.Body.Len())
	}
	busy.Abort()
	if got := askIn(h, "http://example.com/", "br").Header().Get("Content-Encoding"); got != "br" {
		t.Errorf("with a coder free: Content-Encoding %q, want br", got)
	}
}

// A coding that is no smaller is not kept, and not tried again.
func TestWhatDoesNotCompressIsRemembered(t *testing.T) {
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	h := codingHandler(t, html(string(noise)), nil)
	askIn(h, "http://example.com/", "br")
	h.wait.Wait() // the coding ends behind its client
	w := askIn(h, "http://example.com/", "br")
	if got := w.Header().Get("Content-Encoding"); got != "" || h.Stats.Encode.Demands.Load() != 1 {
		t.Errorf("Content-Encoding %q after %d tries, want identity after one", got, h.Stats.Encode.Demands.Load())
	}
}

// Hot objects get the best codings behind; cold ones do not.
func TestHotObjectsAreCodedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := page(100 << 10)
		st, _ := NewStore(StoreOptions{Memory: 64 << 20})
		h, err := New(Config{Store: st, Recode: 1, Sites: []Site{{Name: "s", Origin: html(body), Encode: new(Encode)}}})
		if err != nil {
			t.Fatal(err)
		}
		askIn(h, "http://example.com/cold", "gzip")
		for range 10 {
			askIn(h, "http://example.com/hot", "gzip")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		hot, _ := h.Stored("http://example.com/hot")
		cold, _ := h.Stored("http://example.com/cold")
		sizes := map[string]int64{}
		for _, c := range hot[0].Codings {
			if sizes[c.Coding] = c.Size; !c.Best {
				t.Errorf("hot: %+v is not the best", c)
			}
		}
		if len(cold[0].Codings) != 1 || cold[0].Codings[0].Best || cold[0].Codings[0].Size <= sizes["gzip"] {
			t.Errorf("cold: %+v, want one gzip as it was first made; hot: %v", cold[0].Codings, sizes)
		}
		if sizes["br"] == 0 || sizes["br"] >= sizes["gzip"] {
			t.Errorf("hot: %v, want a smaller br though nobody made one", sizes)
		}
		for _, accept := range realAccepts {
			w := askIn(h, "http://example.com/hot", accept)
			coding := w.Header().Get("Content-Encoding")
			if got := undo(t, coding, w.Body.Bytes()); got != body {
				t.Errorf("%q: %s decodes to %d bytes, want the page's %d", accept, coding, len(got), len(body))
			}
			if n := w.Header().Get("Content-Length"); coding != "" && n != strconv.FormatInt(sizes[coding], 10) {
				t.Errorf("%q: %s has length %s, want %d", accept, coding, n, sizes[coding])
			}
		}
		if got := h.Stats.Encode.Recodings.Load(); got != 2 {
			t.Errorf("%d codings made again, want gzip and br", got)
		}
		h.Close()
		st.Close()
	})
}

// The bytes of a bomb stop at the ratio; nothing of them is kept.
func TestBombIsCut(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 1024 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	origin := html(bomb.String())
	origin.header.Set("Content-Encoding", "gzip")
	h := codingHandler(t, origin, nil)
	server := httptest.NewServer(h)
	defer server.Close()
	r, _ := http.NewRequest("GET", server.URL, nil)
	r.Header.Set("Accept-Encoding", "identity")
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if limit := int64(1<<20 + 100*bomb.Len()); err == nil || n > limit {
		t.Errorf("a bomb of %d bytes gave %d and ended with %v; want at most %d and an error", bomb.Len(), n, err, limit)
	}
	h.wait.Wait()
	stored, _ := h.Stored(server.URL)
	if len(stored) != 0 || h.Stats.Encode.DecodeRefused.Load() != 1 {
		t.Errorf("stored %+v, %d refused; want nothing, and one", stored, h.Stats.Encode.DecodeRefused.Load())
	}
	if u := h.Store.Usage(); u.Filling != 0 {
		t.Errorf("%d bytes are still charged", u.Filling)
	}
}

// A first demand's client gets its first byte while the rest is being coded.
func TestFirstPieceIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		h := codingHandler(t, rt(func(r *http.Request) (*http.Response, error) {
			q := resp(r, "", "Cache-Control", "max-age=60", "Content-Type", "text/html")
			q.ContentLength, q.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader(page(2000)), waits(gate)))
			return q, nil
		}), nil)
		w := &firstByte{ResponseRecorder: httptest.NewRecorder(), came: make(chan struct{})}
		r := httptest.NewRequest("GET", "http://example.com/", nil)
		r.Header.Set("Accept-Encoding", "zstd")
		done := make(chan struct{})
		go func() { h.ServeHTTP(w, r); close(done) }()
		<-w.came // else the bubble is deadlocked
		close(gate)
		<-done
		if got := undo(t, "zstd", w.Body.Bytes()); got != page(2000) {
			t.Errorf("got %d bytes", len(got))
		}
	})
}

type waits chan struct{}

func (c waits) Read([]byte) (int, error) { <-c; return 0, io.EOF }

type firstByte struct {
	*httptest.ResponseRecorder
	once sync.Once
	came chan struct{}
}

func (w *firstByte) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.came) })
	return w.ResponseRecorder.Write(p)
}

// Clients of all codings read one object while it grows, is purged and comes
// anew: each gets one version whole, and none that was purged before it asked.
func TestCodingsAmongPurges(t *testing.T) {
	for name, memory := range map[string]int64{"kept": 64 << 20, "too large to be kept": 1 << 20} {
		t.Run(name, func(t *testing.T) { codingsAmongPurges(t, memory) })
	}
}

func codingsAmongPurges(t *testing.T, memory int64) {
	var version, purged atomic.Int64
	rules := purge.NewRules(0)
	st, err := NewStore(WithRules(StoreOptions{Memory: memory}, rules))
	if err != nil {
		t.Fatal(err)
	}
	h := codingHandler(t, rt(func(r *http.Request) (*http.Response, error) {
		q := resp(r, "", "Cache-Control", "max-age=60", "Content-Type", "text/html")
		q.ContentLength, q.Body = -1, io.NopCloser(&dribble{text: versioned(version.Load())})
		return q, nil
	}), func(c *Config) { c.Store, c.Purge = st, rules })
	defer st.Close() // the handler's own is closed by it
	accepts := [...]string{"br", "gzip", "zstd", ""}
	var clients sync.WaitGroup
	for client := range 64 {
		clients.Go(func() {
			accept := accepts[client%len(accepts)]
			for range 4 {
				least := purged.Load()
				w := askIn(h, "http://example.com/", accept)
				text := undo(t, w.Header().Get("Content-Encoding"), w.Body.Bytes())
				v, _ := strconv.ParseInt(text[:min(len(text), 8)], 10, 64)
				if text != versioned(v) || v < least {
					t.Errorf("%q: %d bytes of version %d; want it whole, and %d or later", accept, len(text), v, least)
				}
			}
		})
	}
	stop := make(chan struct{})
	var purger sync.WaitGroup
	purger.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			p, faults := purge.Prepare(purge.Request{URLs: []string{"http://example.com/"}}, h.Normal)
			if faults != nil {
				t.Error(faults)
				return
			}
			v := version.Add(1)
			rules.Apply(p, time.Now())
			purged.Store(v)
			runtime.Gosched()
		}
	})
	clients.Wait()
	close(stop)
	purger.Wait()
	h.Close()
	if u := st.Usage(); u.Filling != 0 || u.Fills != 0 {
		t.Errorf("%d bytes of %d fills are still charged", u.Filling, u.Fills)
	}
}

func versioned(v int64) string { return fmt.Sprintf("%08d", v) + onePage() }

var onePage = sync.OnceValue(func() string { return page(150 << 10) })

// dribble gives its text in small pieces.
type dribble struct{ text string }

func (d *dribble) Read(p []byte) (int, error) {
	if d.text == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 3000)], d.text)
	d.text = d.text[n:]
	return n, nil
}

// What functions make of content is made of identity, and coded behind them.
func TestFunctionsChangeContentBeforeItIsCoded(t *testing.T) {
	body := page(4 << 10) // few callbacks: a loaded machine is no reason to stop one
	w := withFunctions(t, html(body), []program{{lines: "upper\n", content: true}}, nil, func(c *Config) { c.Sites[0].Encode = new(Encode) })
	for i, step := range []struct{ accept, coding, tag string }{
		{"br", "br", `W/"v1~br"`}, {"br", "br", `W/"v1~br"`}, {"gzip", "gzip", `W/"v1~gz"`}, {"identity", "", `W/"v1"`},
	} {
		resp, coded := w.ask(t, "GET", "/a", "Accept-Encoding", step.accept)
		got := undo(t, resp.Header.Get("Content-Encoding"), []byte(coded))
		if resp.Header.Get("Content-Encoding") != step.coding || resp.Header.Get("Etag") != step.tag || got != strings.ToUpper(body) {
			t.Errorf("step %d: %s: got %v, %d bytes; want %s, %s and the page in upper case", i, step.accept, resp.Header, len(got), step.coding, step.tag)
		}
	}
	if n := w.Stats.Encode.Demands.Load(); n != 0 {
		t.Errorf("%d codings of the stored page were made, want none", n)
	}
}

// Functions that see headers alone see the coding that is sent from the store.
func TestFunctionsSeeTheStoredCoding(t *testing.T) {
	body := page(20 << 10)
	w := withFunctions(t, html(body), []program{{lines: "response x-seen yes\n"}}, nil, func(c *Config) { c.Sites[0].Encode = new(Encode) })
	for range 2 {
		resp, coded := w.ask(t, "GET", "/a", "Accept-Encoding", "br")
		if got := undo(t, resp.Header.Get("Content-Encoding"), []byte(coded)); resp.Header.Get("Content-Encoding") != "br" || resp.Header.Get("X-Seen") != "yes" || got != body {
			t.Errorf("got %v, %d bytes", resp.Header, len(got))
		}
	}
	if n := w.Stats.Encode.Demands.Load(); n != 1 {
		t.Errorf("%d codings were made, want one", n)
	}
}
