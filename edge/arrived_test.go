package edge

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// arrivedBody is a body of which the first bytes came with the head.
type arrivedBody struct {
	io.Reader
	here int
}

func (b arrivedBody) Close() error  { return nil }
func (b arrivedBody) Buffered() int { return b.here }

// steps is a ResponseWriter that notes what is done with it.
type steps struct {
	sink
	did []string
}

func (s *steps) WriteHeader(int)             { s.did = append(s.did, "head") }
func (s *steps) Write(p []byte) (int, error) { s.did = append(s.did, "body"); return len(p), nil }
func (s *steps) Flush()                      { s.did = append(s.did, "flush") }

// TestTheHeadWaitsOnlyForContentThatIsHere has answers pass that came with their
// content, with its beginning, or with none of it: only where there is some to
// send do the head and it go together.
func TestTheHeadWaitsOnlyForContentThatIsHere(t *testing.T) {
	came := func(n int) func(io.Reader) io.ReadCloser {
		return func(r io.Reader) io.ReadCloser { return arrivedBody{r, n} }
	}
	for _, test := range []struct {
		name   string
		body   func(io.Reader) io.ReadCloser
		length int64
		want   []string
	}{
		{"all", came(7), 7, []string{"head", "body", "flush"}},
		{"some", came(2), 7, []string{"head", "body", "flush"}},
		{"some of unknown length", came(2), -1, []string{"head", "body", "flush"}},
		{"none", came(0), 7, []string{"head", "flush", "body", "flush"}},
		{"not known", io.NopCloser, 7, []string{"head", "flush", "body", "flush"}},
		{"empty", func(io.Reader) io.ReadCloser { return http.NoBody }, 0, []string{"head"}},
	} {
		for _, method := range []string{"GET", "OPTIONS"} { // by way of a fill, and at once
			t.Run(test.name+"/"+method, func(t *testing.T) {
				st, err := NewStore(StoreOptions{Memory: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				defer st.Close()
				h, err := New(Config{Store: st, Sites: []Site{{Name: "s", Origin: once{&http.Response{
					StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Cache-Control": {"private"}},
					Body: test.body(strings.NewReader("content")), ContentLength: test.length,
				}}}}})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				r := request(1)
				r.Method = method
				w := &steps{sink: sink{h: http.Header{}}}
				h.ServeHTTP(w, r)
				if !slices.Equal(w.did, test.want) {
					t.Errorf("did %v, want %v", w.did, test.want)
				}
			})
		}
	}
}

// once is an origin of one answer.
type once struct{ resp *http.Response }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := *o.resp
	resp.Header = o.resp.Header.Clone()
	resp.Request = r
	return &resp, nil
}
