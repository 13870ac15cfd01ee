package listen

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"seawall/edge"
)

// origin answers GET with an object that may be kept, and anything else with
// what it was sent.
type origin struct{ object []byte }

func (o origin) RoundTrip(r *http.Request) (*http.Response, error) {
	body := o.object
	h := http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"v"`}}
	if r.Method == http.MethodPost {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body, h = append([]byte("got "), sent...), http.Header{}
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: h, Request: r,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// The same walk answers over every protocol.
func TestWalkOverEveryProtocol(t *testing.T) {
	object := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			store, err := edge.NewStore(edge.StoreOptions{Memory: 64 << 20})
			if err != nil {
				t.Fatal(err)
			}
			h, err := edge.New(edge.Config{Store: store, Sites: []edge.Site{{Name: "s", Origin: origin{object}}}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Close(); store.Close() })
			n := startFull(t, &Server{Handler: h})
			client, url := p.client(t, n)
			b := &bench{t: t, client: client, url: url}
			for _, c := range []struct {
				name, method, path, body string
				set                      func(*http.Request)
				want                     string
			}{
				{"miss", "GET", "/a", "", nil, "200 1048576 uri-miss"},
				{"hit", "GET", "/a", "", nil, "200 1048576 hit"},
				{"HEAD", "HEAD", "/a", "", nil, "200 0 hit"},
				{"not modified", "GET", "/a", "", field("If-None-Match", `"v"`), "304 0 hit"},
				{"range", "GET", "/a", "", field("Range", "bytes=16-31"), "206 16 hit"},
				{"no such range", "GET", "/a", "", field("Range", "bytes=9999999-"), "416 0 hit"},
				{"POST", "POST", "/b", "content", nil, "200 11 method"},
			} {
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				if c.set == nil {
					c.set = func(*http.Request) {}
				}
				res, err := b.do(c.method, c.path, body, c.set)
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					t.Errorf("%s: content: %v", c.name, err)
				}
				if res.StatusCode == 416 {
					got = nil // a page that tells why
				}
				if len(got) == len(object) && !bytes.Equal(got, object) {
					t.Errorf("%s: the content differs", c.name)
				}
				if told := fmt.Sprintf("%d %d %s", res.StatusCode, len(got), how(res.Header.Get("Cache-Status"))); told != c.want {
					t.Errorf("%s: got %s, want %s; Cache-Status %q", c.name, told, c.want, res.Header.Get("Cache-Status"))
				}
			}
		})
	}
}

// how is what Cache-Status says first (RFC 9211).
func how(status string) string {
	for part := range strings.SplitSeq(status, ";") {
		part = strings.TrimSpace(part)
		if fwd, ok := strings.CutPrefix(part, "fwd="); ok || part == "hit" {
			return fwd // the whole part, when nothing was cut
		}
	}
	return "?"
}
