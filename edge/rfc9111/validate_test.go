package rfc9111

import (
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestNotModified(t *testing.T) {
	stored := header(`ETag: "a"`, modified, "Date: "+dated(0))
	weak := header(`ETag: W/"a"`, "Date: "+dated(0))
	dateOnly := header("Date: " + dated(0))
	for _, test := range []struct {
		name   string
		method string
		stored http.Header
		req    []string
		want   bool
	}{
		{"§7 no condition", "GET", stored, nil, false},
		{"§7 strong tag", "GET", stored, []string{`If-None-Match: "a"`}, true},
		{"§7 HEAD", "HEAD", stored, []string{`If-None-Match: "a"`}, true},
		{"§7 other methods are not evaluated", "PUT", stored, []string{"If-None-Match: *"}, false},
		{"§7 weak tag of the client", "GET", stored, []string{`If-None-Match: W/"a"`}, true},
		{"§7 weak tag stored", "GET", weak, []string{`If-None-Match: "a"`}, true},
		{"§7 another tag", "GET", stored, []string{`If-None-Match: "b"`}, false},
		{"§7 later in the list", "GET", stored, []string{`If-None-Match: "b", W/"c" , "a"`}, true},
		{"§7 on a second line", "GET", stored, []string{`If-None-Match: "b"`, `If-None-Match: "a"`}, true},
		{"§7 any", "GET", stored, []string{"If-None-Match: *"}, true},
		{"§7 any, without a stored tag", "GET", dateOnly, []string{"If-None-Match: *"}, true},
		{"§7 quoted star is a tag", "GET", stored, []string{`If-None-Match: "*"`}, false},
		{"§7 star in a list is malformed", "GET", stored, []string{`If-None-Match: "b", *`}, false},
		{"§7 a tag with a comma", "GET", header(`ETag: "x,y"`), []string{`If-None-Match: "b", "x,y"`}, true},
		{"§7 part of a tag with a comma", "GET", header(`ETag: "y"`), []string{`If-None-Match: "x,"y","`}, false},
		{"§7 a backslash is an ordinary byte", "GET", header(`ETag: "b"`), []string{`If-None-Match: "a\", "b"`}, true},
		{"§7 obs-text byte by byte", "GET", header("ETag: \"\xe9\""), []string{"If-None-Match: \"\xe9\""}, true},
		{"§7 obs-text is not transcoded", "GET", header("ETag: \"\u00e9\""), []string{"If-None-Match: \"\xe9\""}, false},
		{"§7 tags are case-sensitive", "GET", stored, []string{`If-None-Match: "A"`}, false},
		{"§7 unquoted", "GET", header("ETag: a"), []string{"If-None-Match: a"}, false},
		{"§7 lower-case w/", "GET", stored, []string{`If-None-Match: w/"a"`}, false},
		{`§7 W\`, "GET", stored, []string{`If-None-Match: W\"a"`}, false},
		{"§7 W without slash", "GET", stored, []string{`If-None-Match: W"a"`}, false},
		{"§7 W/ alone", "GET", header("ETag: W/"), []string{"If-None-Match: W/"}, false},
		{"§7 one quote", "GET", header(`ETag: "`), []string{`If-None-Match: "`}, false},
		{"§7 no closing quote", "GET", header(`ETag: "a`), []string{`If-None-Match: "a`}, false},
		{"§7 no opening quote", "GET", header(`ETag: a"`), []string{`If-None-Match: a"`}, false},
		{"§7 the first visible byte", "GET", header(`ETag: "!"`), []string{`If-None-Match: "!"`}, true},
		{"§7 the empty tag", "GET", header(`ETag: ""`), []string{`If-None-Match: ""`}, true},
		{"§7 a malformed member beside a good one", "GET", stored, []string{`If-None-Match: a, "a"`}, true},
		{"§7 space in a tag", "GET", header(`ETag: "a b"`), []string{`If-None-Match: "a b"`}, false},
		{"§7 If-None-Match outranks", "GET", stored, []string{`If-None-Match: "b"`, "If-Modified-Since: " + dated(0)}, false},
		{"§7 malformed, it still outranks", "GET", stored, []string{"If-None-Match: b", "If-Modified-Since: " + dated(0)}, false},
		{"§7 If-Modified-Since equal", "GET", stored, []string{"If-Modified-Since: " + dated(-24*time.Hour)}, true},
		{"§7 If-Modified-Since later", "GET", stored, []string{"If-Modified-Since: " + dated(0)}, true},
		{"§7 If-Modified-Since earlier", "GET", stored, []string{"If-Modified-Since: " + dated(-25*time.Hour)}, false},
		{"§7 If-Modified-Since in RFC 850 form", "GET", stored, []string{"If-Modified-Since: Monday, 09-Mar-26 12:00:00 GMT"}, true},
		{"§7 If-Modified-Since in asctime form", "GET", stored, []string{"If-Modified-Since: Mon Mar  9 12:00:00 2026"}, true},
		{"§7 If-Modified-Since unreadable", "GET", stored, []string{"If-Modified-Since: Mon, 09 Mar 2026 12:00:00 UTC"}, false},
		{"§7 If-Modified-Since twice", "GET", stored, []string{"If-Modified-Since: " + dated(0), "If-Modified-Since: " + dated(0)}, false},
		{"§7 without Last-Modified compare with Date", "GET", dateOnly, []string{"If-Modified-Since: " + dated(0)}, true},
		{"§7 and earlier than Date", "GET", dateOnly, []string{"If-Modified-Since: " + dated(-time.Second)}, false},
		{"§7 without either compare with the reception", "GET", header(), []string{"If-Modified-Since: " + dated(0)}, true},
		{"§7 If-Match is not evaluated", "GET", stored, []string{`If-Match: "a"`}, false},
	} {
		v := ValidatorsOf(test.stored, noon.Add(300*time.Millisecond))
		if got := NotModified(test.method, header(test.req...), v); got != test.want {
			t.Errorf("%s: %s %q against %+v: got %v, want %v", test.name, test.method, test.req, v, got, test.want)
		}
	}
	v, plain := ValidatorsOf(stored, noon), header("Accept: x")
	noAllocs(t, "NotModified without condition", func() { NotModified("GET", plain, v) })
}

func TestTheMostRecentIsNewer(t *testing.T) {
	older, newer := ValidatorsOf(header("Date: "+dated(-time.Hour)), noon), ValidatorsOf(header("Date: "+dated(0)), noon)
	if !newer.Newer(older) || older.Newer(newer) {
		t.Error("§4 the later Date must be the newer one, and only it")
	}
}

func TestWhichConditionsARequestHas(t *testing.T) {
	for _, test := range []struct {
		line                     string
		conditional, precautions bool
	}{
		{"X: y", false, false},
		{`If-None-Match: "a"`, true, false},
		{"If-Modified-Since: x", true, false},
		{`If-Match: "a"`, false, true},
		{"If-Unmodified-Since: x", false, true},
		{`If-Range: "a"`, false, false},
	} {
		h := header(test.line)
		if Conditional(h) != test.conditional || HasPreconditions(h) != test.precautions {
			t.Errorf("§7 %s: got %v, %v, want %v, %v", test.line, Conditional(h), HasPreconditions(h), test.conditional, test.precautions)
		}
	}
	h := header(`If-None-Match: "a"`, "If-Modified-Since: x", `If-Range: "a"`, `If-Match: "a"`)
	DropConditions(h)
	if want := header(`If-Range: "a"`, `If-Match: "a"`); !reflect.DeepEqual(h, want) {
		t.Errorf("§7 DropConditions: got %v, want %v", h, want)
	}
}

func TestSetConditions(t *testing.T) {
	for _, test := range []struct {
		name   string
		stored []string
		want   []string
	}{
		{"§7 both", []string{`ETag: "a"`, modified}, []string{`If-None-Match: "a"`, "If-Modified-Since: Mon, 09 Mar 2026 12:00:00 GMT"}},
		{"§7 weak tag verbatim", []string{`ETag: W/"a"`}, []string{`If-None-Match: W/"a"`}},
		{"§7 no malformed tag", []string{"ETag: a"}, nil},
		{"§7 no malformed tag beside a date", []string{"ETag: w/\"a\"", modified}, []string{"If-Modified-Since: Mon, 09 Mar 2026 12:00:00 GMT"}},
		{"§7 no unreadable date", []string{`ETag: "a"`, "Last-Modified: yesterday"}, []string{`If-None-Match: "a"`}},
		{"§7 not one of two tags", []string{`ETag: "a"`, `ETag: "b"`}, nil},
		{"§7 none", nil, nil},
	} {
		req := header(`If-None-Match: "client"`, "If-Modified-Since: x", "Accept: y")
		want := header(append(test.want, "Accept: y")...)
		if ok := SetConditions(req, header(test.stored...)); ok != (test.want != nil) || !reflect.DeepEqual(req, want) {
			t.Errorf("%s: %q: got %v, %v, want %v", test.name, test.stored, req, ok, want)
		}
	}
}

func TestConfirms(t *testing.T) {
	for _, test := range []struct {
		name        string
		stored, got []string
		want        bool
	}{
		{"§7 no validator", []string{tagged}, nil, true},
		{"§7 the same strong tag", []string{tagged}, []string{tagged}, true},
		{"§7 another strong tag", []string{tagged}, []string{`ETag: "b"`}, false},
		{"§7 a strong tag where none is stored", []string{modified}, []string{tagged}, false},
		{"§7 a strong tag where a weak one is stored", []string{`ETag: W/"a"`}, []string{tagged}, false},
		{"§7 the same weak tag", []string{`ETag: W/"a"`}, []string{`ETag: W/"a"`}, true},
		{"§7 a weak tag where a strong one is stored", []string{tagged}, []string{`ETag: W/"a"`}, true},
		{"§7 another weak tag", []string{tagged}, []string{`ETag: W/"b"`}, false},
		{"§7 the same date", []string{modified}, []string{"Last-Modified: Monday, 09-Mar-26 12:00:00 GMT"}, true},
		{"§7 another date", []string{modified}, []string{"Last-Modified: " + dated(0)}, false},
		{"§7 a malformed tag", []string{tagged}, []string{"ETag: b"}, false},
		{"§7 a malformed tag of a dated response", []string{modified}, []string{"ETag: b", modified}, false},
		{"§7 the same malformed tag", []string{"ETag: b"}, []string{"ETag: b"}, true},
		{"§7 differing tags", []string{tagged}, []string{tagged, `ETag: "b"`}, false},
		{"§7 the same differing tags", []string{tagged, `ETag: "b"`}, []string{tagged, `ETag: "b"`}, true},
		{"§7 an empty tag", []string{tagged}, []string{"ETag: "}, false},
		{"§7 a malformed date", []string{modified}, []string{"Last-Modified: yesterday"}, false},
		{"§7 the same malformed date", []string{"Last-Modified: yesterday"}, []string{"Last-Modified: yesterday"}, true},
		{"§7 differing dates", []string{modified}, []string{modified, "Last-Modified: " + dated(0)}, false},
		{"§7 the tag decides, not a malformed date", []string{tagged, modified}, []string{tagged, "Last-Modified: x"}, true},
		{"§7 the tag decides, not the date", []string{tagged, modified}, []string{tagged, "Last-Modified: " + dated(0)}, true},
	} {
		if got := Confirms(header(test.stored...), header(test.got...)); got != test.want {
			t.Errorf("%s: stored %q, 304 %q: got %v, want %v", test.name, test.stored, test.got, got, test.want)
		}
	}
}

func TestMerge(t *testing.T) {
	stored := header("Cache-Control: max-age=1", "Expires: 0", "Content-Type: text/a", "Content-Length: 5",
		"Content-Encoding: gzip", "Content-Range: bytes 0-1/5", `ETag: "a"`, "X-Kept: 1", "X-Two: 1", "X-Two: 2",
		"Age: 50", "Date: "+dated(-time.Hour), "Content-Foo: 1")
	said := header("Cache-Control: max-age=2", "Expires: "+dated(0), "Content-Type: text/b", "Content-Length: 9",
		"Content-Encoding: br", "Content-Range: bytes 0-8/9", `ETag: W/"a"`, "X-Two: 3", "Date: "+dated(0),
		"Content-Foo: 2", "X-New: 1", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: 1", "Set-Cookie: a=1")
	before, saidBefore := stored.Clone(), said.Clone()
	want := header("Cache-Control: max-age=2", "Expires: "+dated(0), "Content-Type: text/b", "Content-Length: 5",
		"Content-Encoding: gzip", "Content-Range: bytes 0-1/5", `ETag: "a"`, "X-Kept: 1", "X-Two: 3", "Date: "+dated(0),
		"Content-Foo: 2", "X-New: 1", "Set-Cookie: a=1")
	got := Merge(stored, said)
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("§7 %s: got %q, want %q", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, expected := want[name]; !expected {
			t.Errorf("§7 %s: %q: want none", name, got[name])
		}
	}
	got["X-Kept"][0], got["X-New"][0] = "changed", "changed"
	if !reflect.DeepEqual(stored, before) || !reflect.DeepEqual(said, saidBefore) {
		t.Error("§7 Merge changed its inputs or shares values with them")
	}
}

func TestAMergedResponseIsFresh(t *testing.T) {
	later := noon.Add(time.Hour)
	stored := header("Cache-Control: max-age=60", "Age: 50", "Date: "+dated(0), tagged)
	for name, said := range map[string]http.Header{
		"§7 with Date":    header("Date: " + dated(time.Hour)),
		"§7 without Date": header(),
	} {
		d := Judge(Ask{Method: "GET"}, 200, Merge(stored, said), later, later, nil)
		if ttl := d.Terms.TTL(later); ttl != time.Minute {
			t.Errorf("%s: got ttl %v, want 1m", name, ttl)
		}
	}
}

func TestHeadUpdate(t *testing.T) {
	stored := []string{tagged, modified, "Content-Length: 5"}
	for _, test := range []struct {
		name   string
		stored []string
		status int
		head   []string
		want   HeadEffect
	}{
		{"§7 all agree", stored, 200, stored, HeadRefreshes},
		{"§7 a tag agrees", stored, 200, []string{tagged}, HeadRefreshes},
		{"§7 a date agrees", stored, 200, []string{modified}, HeadRefreshes},
		{"§7 no validator", stored, 200, []string{"Content-Length: 5"}, HeadNothing},
		{"§7 another tag", stored, 200, []string{`ETag: "b"`}, HeadInvalidates},
		{"§7 another date", stored, 200, []string{tagged, "Last-Modified: " + dated(0)}, HeadInvalidates},
		{"§7 another length", stored, 200, []string{tagged, "Content-Length: 6"}, HeadInvalidates},
		{"§7 another length without validator", stored, 200, []string{"Content-Length: 6"}, HeadInvalidates},
		{"§7 a tag appeared", []string{modified}, 200, []string{modified, tagged}, HeadInvalidates},
		{"§7 a tag became strong", []string{`ETag: W/"a"`}, 200, []string{tagged}, HeadInvalidates},
		{"§7 length unknown here", []string{tagged}, 200, []string{tagged, "Content-Length: 6"}, HeadRefreshes},
		{"§7 404", stored, 404, stored, HeadInvalidates},
		{"§7 410", stored, 410, nil, HeadInvalidates},
		{"§7 503", stored, 503, []string{`ETag: "b"`}, HeadNothing},
		{"§7 304", stored, 304, []string{tagged}, HeadNothing},
	} {
		if got := HeadUpdate(header(test.stored...), header(test.head...), test.status); got != test.want {
			t.Errorf("%s: %d %q against %q: got %v, want %v", test.name, test.status, test.head, test.stored, got, test.want)
		}
	}
}

func TestNotModifiedHeader(t *testing.T) {
	always := []string{"Date: " + dated(0), "Cache-Control: max-age=1", "Expires: 0", "Vary: A", "Vary: B", "Content-Location: /x"}
	never := []string{"Content-Type: text/a", "Content-Length: 5", "Content-Encoding: gzip", "Set-Cookie: a=1", "X: y"}
	for name, extra := range map[string][]string{
		"§7 with a tag":    {tagged},
		"§7 without a tag": {modified},
	} {
		stored := header(append(append([]string{}, always...), append(never, extra...)...)...)
		if extra[0] == tagged {
			stored.Set("Last-Modified", dated(0))
		}
		want := header(append(append([]string{}, always...), extra...)...)
		if got := NotModifiedHeader(stored); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
