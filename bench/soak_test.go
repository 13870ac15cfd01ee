package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
)

// good returns an errand for object 5 and a response that is right for it.
func good(v *visitor) (errand, *http.Response, []byte) {
	o := soakObject(5)
	o.version = 2
	e := errand{object: soakObject(5), method: http.MethodGet, to: -1, floor: 2}
	h := http.Header{}
	for name, value := range map[string]string{
		"Cache-Status": "seawall; hit; ttl=9", "Age": "3", "Via": "1.1 seawall", "Date": "now",
		"Cache-Control": "public, max-age=3600", "ETag": o.etag(), "X-Object": o.path(),
	} {
		h.Set(name, value)
	}
	return e, &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: h}, bytes.Clone(v.noise.body(o))
}

func TestSoakJudges(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(e *errand, r *http.Response, body *[]byte)
		want  string // in the error; "" for none
	}{
		{"right", func(*errand, *http.Response, *[]byte) {}, ""},
		{"a wrong byte", func(_ *errand, _ *http.Response, b *[]byte) { (*b)[10] ^= 4 }, "wrong byte at 10"},
		{"a short body", func(_ *errand, _ *http.Response, b *[]byte) { *b = (*b)[1:] }, "bytes, want"},
		{"a short body with its length", func(_ *errand, r *http.Response, b *[]byte) { *b = (*b)[1:]; r.Header.Set("Content-Length", "7") }, "Content-Length"},
		{"a purged version", func(e *errand, _ *http.Response, _ *[]byte) { e.floor = 3 }, "was purged"},
		{"a version never made", func(_ *errand, r *http.Response, _ *[]byte) {
			o := soakObject(5)
			o.version = 9
			r.Header.Set("ETag", o.etag())
		}, "never made"},
		{"another's ETag", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Set("ETag", soakObject(6).etag()) }, "something else"},
		{"304 that nobody asked for", func(_ *errand, r *http.Response, _ *[]byte) { r.StatusCode = 304 }, "304"},
		{"206 that nobody asked for", func(_ *errand, r *http.Response, _ *[]byte) { r.StatusCode = 206 }, "Content-Range"},
		{"another range", func(e *errand, r *http.Response, b *[]byte) {
			e.from, e.to, r.StatusCode, *b = 10, 19, 206, (*b)[11:21]
			r.Header.Set("Content-Range", "bytes 10-19/"+strings.Split(e.object.path(), "/")[2])
		}, "wrong byte"},
		{"an odd status", func(_ *errand, r *http.Response, _ *[]byte) { r.StatusCode, r.Status = 404, "404 Not Found" }, "404"},
		{"no Cache-Status", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Del("Cache-Status") }, "Cache-Status"},
		{"a hit without Age", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Del("Age") }, "without Age"},
		{"an Age below zero", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Set("Age", "-1") }, "Age"},
		{"two ETags", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Add("ETag", "x") }, "2 times"},
		{"tags", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Set("Surrogate-Key", "a") }, "Surrogate-Key"},
		{"another's fields", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Set("X-Object", "/a/1/1") }, "X-Object"},
		{"no Via", func(_ *errand, r *http.Response, _ *[]byte) { r.Header.Del("Via") }, "Via"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &visitor{soaker: &soaker{noise: newPatterns()}, by: h1, etags: make(map[int]string)}
			v.latest[5].Store(4)
			e, resp, body := good(v)
			tt.spoil(&e, resp, &body)
			err := v.judge(e, resp, body)
			if err == nil {
				err = v.judgeHeader(e, resp)
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestFaultsAreForgivenWhileTheyLastAndALittleLonger(t *testing.T) {
	s := new(soaker)
	now := time.Now()
	if s.tolerates(now) {
		t.Error("before any fault: an error was forgiven")
	}
	s.faulty.Store(true)
	if !s.tolerates(now) {
		t.Error("during a fault: an error was not forgiven")
	}
	s.faulty.Store(false)
	s.faultEnded.Store(now.UnixNano())
	if !s.tolerates(now.Add(time.Second)) {
		t.Error("a second after a fault: an error was not forgiven")
	}
	if s.tolerates(now.Add(5 * time.Second)) {
		t.Error("five seconds after a fault: an error was forgiven")
	}
}

func TestGrowingMemoryIsFound(t *testing.T) {
	for _, tt := range []struct {
		name   string
		length time.Duration
		at     func(i int) float64
		wrong  bool
	}{
		{"level", 2 * time.Minute, func(int) float64 { return 90 }, false},
		{"growing", 2 * time.Minute, func(i int) float64 { return 60 + float64(i)/2 }, true},
		{"growing, too short to tell", 20 * time.Second, func(i int) float64 { return 60 + float64(i)/2 }, false},
		{"past the budget", 20 * time.Second, func(i int) float64 { return 100 + float64(i) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &soaker{notes: new(bytes.Buffer), cancel: func() {}}
			for i := range 120 {
				s.summary.Samples = append(s.summary.Samples, soakSample{MiB: tt.at(i)})
			}
			s.judgeMemory(tt.length)
			if got := s.summary.Failures > 0; got != tt.wrong {
				t.Errorf("got wrong = %v (%q), want %v", got, s.summary.FirstWrong, tt.wrong)
			}
		})
	}
}

func TestMetric(t *testing.T) {
	const text = "# TYPE go_goroutines gauge\ngo_goroutines_total 9\ngo_goroutines 42\n"
	if got, err := metric(text, "go_goroutines"); err != nil || got != 42 {
		t.Errorf("got %v, error %v; want 42", got, err)
	}
	if _, err := metric(text, "go_threads"); err == nil {
		t.Error("a metric that is not there: got no error")
	}
}
