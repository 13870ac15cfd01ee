package edge

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// speaker is an origin that chooses a language by one of three ways to match,
// in falling order of weight. Weights alone order what a client wants.
type speaker struct {
	tags []string // what it has, in lower case; the first is its default
	way  int
}

func (s *speaker) answer(field string) string {
	type wish struct {
		tag string
		q   int
	}
	var wishes []wish
	refused := map[string]bool{}
	for m := range strings.SplitSeq(strings.ToLower(field), ",") {
		tag, weight, ok := strings.Cut(strings.TrimSpace(m), ";q=")
		q := 1000
		if ok {
			f, _ := strconv.ParseFloat(weight, 64)
			q = int(f*1000 + 0.5)
		}
		if q == 0 {
			refused[tag] = true
		} else if tag != "" {
			wishes = append(wishes, wish{tag, q})
		}
	}
	slices.SortFunc(wishes, func(a, b wish) int {
		if a.q != b.q {
			return b.q - a.q
		}
		return strings.Compare(a.tag, b.tag)
	})
	for _, w := range wishes {
		if w.tag == "*" {
			return s.tags[0]
		}
		if tag := s.match(w.tag); tag != "" && !refused[tag] {
			return tag
		}
	}
	return s.tags[0]
}

func (s *speaker) match(wanted string) string {
	for tag := wanted; tag != ""; {
		if slices.Contains(s.tags, tag) {
			return tag
		}
		i := strings.LastIndexByte(tag, '-')
		if s.way != 1 || i < 0 {
			break
		}
		tag = tag[:i] // RFC 4647, 3.4
	}
	if s.way == 2 { // RFC 4647, 3.3.1
		for _, tag := range slices.Sorted(slices.Values(s.tags)) {
			if strings.HasPrefix(tag, wanted+"-") {
				return tag
			}
		}
	}
	return ""
}

func (s *speaker) RoundTrip(r *http.Request) (*http.Response, error) {
	tag := s.answer(strings.Join(r.Header["Accept-Language"], ","))
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Cache-Control": {"max-age=60"}, "Vary": {"Accept-Language"}, "Content-Language": {tag}, "Etag": {strconv.Quote(tag)}},
		Body:   io.NopCloser(strings.NewReader(tag)), ContentLength: int64(len(tag)),
	}, nil
}

func wishlist(rt *rapid.T, tags []string) string {
	list := rapid.SliceOfN(rapid.SampledFrom(append([]string{"*"}, tags...)), 0, 5).Draw(rt, "ranges")
	for i := range list {
		if rapid.Bool().Draw(rt, "upper") {
			list[i] = strings.ToUpper(list[i])
		}
		if q := rapid.IntRange(0, 10).Draw(rt, "weight"); q < 10 {
			list[i] += fmt.Sprintf(";q=0.%d", q)
		}
	}
	return strings.Join(list, ", ")
}

// Whatever was asked before, the node answers each client in the language that
// the origin itself would have: one that takes equal tags, truncates ranges or
// extends them, as long as it goes by weights and not by order.
func TestLanguagesAreThoseOfTheOrigin(t *testing.T) {
	tags := []string{"en", "en-gb", "en-us", "de", "de-at", "de-at-1996", "fr"}
	rapid.Check(t, func(rt *rapid.T) {
		origin := &speaker{
			tags: rapid.SliceOfNDistinct(rapid.SampledFrom(tags), 1, 4, rapid.ID[string]).Draw(rt, "has"),
			way:  rapid.IntRange(0, 2).Draw(rt, "way"),
		}
		st, err := NewStore(StoreOptions{Memory: 4 << 20, Variants: rapid.IntRange(2, 32).Draw(rt, "variants")})
		if err != nil {
			rt.Fatal(err)
		}
		h, err := New(Config{Store: st, Sites: []Site{{Name: "a", Origin: origin}}})
		if err != nil {
			rt.Fatal(err)
		}
		defer st.Close()
		defer h.Close()
		for range rapid.IntRange(1, 40).Draw(rt, "requests") {
			field := wishlist(rt, tags)
			r := request(1)
			r.Header["Accept-Language"] = []string{field}
			w := &sink{h: http.Header{}}
			h.ServeHTTP(w, r)
			if got, want := w.h.Get("Content-Language"), origin.answer(field); got != want {
				rt.Fatalf("%q: got %s (%v), want %s", field, got, w.h["Cache-Status"], want)
			}
		}
	})
}
