package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func sampleRecord() *Record {
	return &Record{
		Time: time.Date(2026, 5, 9, 12, 0, 0, 7e6, time.FixedZone("", 7200)), ID: "00f1e2d3c4b5a697",
		Site: "main", Client: "192.0.2.1", Method: "GET", Scheme: "http", Host: "example.com",
		Target: "/a?b=c", Proto: "HTTP/1.1", Status: 200, Bytes: 1234,
		Duration: 1500 * time.Microsecond, FirstByte: 90 * time.Microsecond,
		Outcome: Miss, Detail: "vary-cap", Origin: "10.0.0.1:80", OriginTime: 2 * time.Second, UserAgent: "curl/8",
	}
}

func TestAccessLogLines(t *testing.T) {
	hostile := sampleRecord()
	hostile.Target = "/\"\\\r\nforged=1\x1b[2J\u009b\xff"
	hostile.UserAgent = "a b=\u2028é"
	hostile.Origin = ""
	numbered := sampleRecord()
	numbered.ID, numbered.number = "", 0x00f1e2d3c4b5a697
	long := &Record{Target: strings.Repeat("x", maxTarget+1), Duration: -1}
	for _, c := range []struct {
		name   string
		format LogFormat
		record *Record
		want   string
	}{
		{"text", LogText, sampleRecord(), `time=2026-05-09T10:00:00.007Z id=00f1e2d3c4b5a697 site=main client=192.0.2.1 method=GET ` +
			`url="http://example.com/a?b=c" protocol=HTTP/1.1 status=200 bytes=1234 duration=0.001500 first_byte=0.000090 ` +
			`outcome=miss detail=vary-cap origin=10.0.0.1:80 origin_duration=2.000000 user_agent=curl/8`},
		{"text with a number for an ID", LogText, numbered, `time=2026-05-09T10:00:00.007Z id=00f1e2d3c4b5a697 site=main client=192.0.2.1 method=GET ` +
			`url="http://example.com/a?b=c" protocol=HTTP/1.1 status=200 bytes=1234 duration=0.001500 first_byte=0.000090 ` +
			`outcome=miss detail=vary-cap origin=10.0.0.1:80 origin_duration=2.000000 user_agent=curl/8`},
		{"json", LogJSON, sampleRecord(), `{"time":"2026-05-09T10:00:00.007Z","id":"00f1e2d3c4b5a697","site":"main","client":"192.0.2.1",` +
			`"method":"GET","url":"http://example.com/a?b=c","protocol":"HTTP/1.1","status":200,"bytes":1234,"duration":0.001500,` +
			`"first_byte":0.000090,"outcome":"miss","detail":"vary-cap","origin":"10.0.0.1:80","origin_duration":2.000000,"user_agent":"curl/8"}`},
		{"text keeps a hostile value on its line", LogText, hostile, `time=2026-05-09T10:00:00.007Z id=00f1e2d3c4b5a697 site=main client=192.0.2.1 method=GET ` +
			`url="http://example.com/\"\\\x0d\x0aforged=1\x1b[2J\xc2\x9b\xff" protocol=HTTP/1.1 status=200 bytes=1234 duration=0.001500 ` +
			`first_byte=0.000090 outcome=miss detail=vary-cap user_agent="a b=\xe2\x80\xa8\xc3\xa9"`},
		{"json escapes a hostile value", LogJSON, hostile, `{"time":"2026-05-09T10:00:00.007Z","id":"00f1e2d3c4b5a697","site":"main","client":"192.0.2.1",` +
			`"method":"GET","url":"http://example.com/\"\\\u000d\u000aforged=1\u001b[2J\u009b\ufffd","protocol":"HTTP/1.1","status":200,` +
			`"bytes":1234,"duration":0.001500,"first_byte":0.000090,"outcome":"miss","detail":"vary-cap","user_agent":"a b=\u2028é"}`},
		{"a long value is cut", LogText, long, `time=0001-01-01T00:00:00.000Z url="` + strings.Repeat("x", maxTarget) +
			`..." status=0 bytes=0 duration=0.000000 first_byte=0.000000 outcome=hit`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(appendRecord(nil, c.record, c.format, newSecond(c.record.Time)))
			if got != c.want+"\n" {
				t.Errorf("record %+v\ngot  %s\nwant %s", c.record, got, c.want)
			}
		})
	}
}

// Whatever a client sends, a JSON line parses and a text line is one line of
// printable ASCII.
// Lines share the text of their second, and of no other.
func TestAccessLogSeconds(t *testing.T) {
	var out bytes.Buffer
	l := NewAccessLog(&out, LogText, 0)
	begin := time.Date(2026, 12, 31, 23, 59, 59, 998e6, time.UTC)
	var want []string
	for _, later := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, time.Second, -time.Hour, 0, 24 * time.Hour} {
		at := begin.Add(later)
		l.Append(&Record{Time: at.In(time.FixedZone("", -3600))})
		want = append(want, "time="+at.Format("2006-01-02T15:04:05.000Z"))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if got, _, _ := strings.Cut(line, " "); got != want[i] {
			t.Errorf("line %d: got %s, want %s", i, got, want[i])
		}
	}
}

// What eight bytes at once say is what each of them says.
func TestSpanIsWhatEachByteSays(t *testing.T) {
	check := func(v []byte) {
		t.Helper()
		want := 0
		for want < len(v) && asIs(v[want]) {
			want++
		}
		if got := span(string(v)); got != want {
			t.Fatalf("%q: got %d, want %d", v, got, want)
		}
	}
	for c := range 256 {
		for length := range 19 {
			v := bytes.Repeat([]byte{'a'}, length)
			check(v)
			for at := range v {
				v[at] = byte(c)
				check(v)
				for next := at + 1; next < len(v); next++ {
					v[next] = byte(c ^ 1)
					check(v)
					v[next] = 'a'
				}
				v[at] = 'a'
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		v := make([]byte, random.IntN(40))
		for i := range v {
			v[i] = byte(random.IntN(256))
			if random.IntN(8) > 0 {
				v[i] = ' ' + v[i]%0x5f
			}
		}
		check(v)
	}
}

func FuzzAccessLog(f *testing.F) {
	f.Add("/a?b", "example.com", "curl/8 (x=\"y\")")
	f.Add("\xab", "\xc2", "") // a character in two halves is none
	f.Add("/\x00\x7f\xc2\x9b", "\xed\xa0\x80", "\u2028\\")
	f.Fuzz(func(t *testing.T, target, host, agent string) {
		r := sampleRecord()
		r.Target, r.Host, r.UserAgent, r.Method, r.Detail = target, host, agent, agent, host
		line := appendRecord(nil, r, LogJSON, newSecond(r.Time))
		var got struct {
			URL    string
			Status int
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if bytes.Count(line, []byte{'\n'}) != 1 || !utf8.Valid(line) {
			t.Fatalf("not one line of UTF-8: %q", line)
		}
		if want := "http://" + host + target; utf8.ValidString(host) && utf8.ValidString(target) && host != "" &&
			len(host) <= maxValue && len(target) <= maxTarget && got.URL != want {
			t.Fatalf("url: got %q, want %q", got.URL, want)
		}
		text := appendRecord(nil, r, LogText, newSecond(r.Time))
		if i := bytes.IndexFunc(text[:len(text)-1], func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Fatalf("byte %d of the text line is not printable: %q", i, text)
		}
	})
}

func TestAccessLogWritesEveryLineOnce(t *testing.T) {
	const writers, each = 8, 2000
	var out bytes.Buffer
	l := NewAccessLog(&out, LogText, writers*each)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				l.Append(&Record{ID: fmt.Sprintf("%d-%d", w, i), Target: "/"})
			}
		})
	}
	all.Wait()
	if err := l.Close(); err != nil || l.Dropped() != 0 {
		t.Fatalf("close: %v, dropped %d", err, l.Dropped())
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(out.String()) {
		_, id, _ := strings.Cut(line, " id=")
		id, _, _ = strings.Cut(id, " ")
		if seen[id] {
			t.Fatalf("line %q written twice", line)
		}
		seen[id] = true
	}
	if len(seen) != writers*each {
		t.Errorf("got %d lines, want %d", len(seen), writers*each)
	}
}

// A writer that stalls makes nobody wait: the ring fills and the rest is counted.
func TestAccessLogNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		l := NewAccessLog(w, LogText, 4)
		l.Append(&Record{ID: "first"})
		synctest.Wait() // the drainer now hangs in Write
		for range 10 {
			l.Append(&Record{ID: "later"})
		}
		if got := l.Dropped(); got != 6 {
			t.Errorf("dropped: got %d, want 6 of 10 with a ring of 4", got)
		}
		go io.Copy(io.Discard, r)
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		l.Append(&Record{ID: "too late"})
		if got := l.Dropped(); got != 7 {
			t.Errorf("dropped after close: got %d, want 7", got)
		}
		w.Close()
	})
}

// writes keeps how many lines each Write was given.
type writes struct {
	mu    sync.Mutex
	lines []int // guarded by mu
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, bytes.Count(p, []byte{'\n'}))
	return len(p), nil
}

// A line that comes alone is written at once; those that follow closely share
// one write, after a rest or when they are many.
func TestAccessLogGathersLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		l := NewAccessLog(&out, LogText, 64)
		defer l.Close()
		lines := func() []int {
			synctest.Wait()
			out.mu.Lock()
			defer out.mu.Unlock()
			return slices.Clone(out.lines)
		}
		appended := func(count int) {
			for range count {
				l.Append(&Record{})
			}
		}
		appended(1)
		if got := lines(); !slices.Equal(got, []int{1}) {
			t.Errorf("one line: got writes of %v lines, want [1] at once", got)
		}
		appended(20)
		if got := lines(); !slices.Equal(got, []int{1}) {
			t.Errorf("20 lines more: got writes of %v lines, want [1] while they gather", got)
		}
		time.Sleep(logRest)
		if got := lines(); !slices.Equal(got, []int{1, 20}) {
			t.Errorf("after a rest: got writes of %v lines, want [1 20]", got)
		}
		appended(60)
		if got := lines(); len(got) < 3 {
			t.Errorf("60 lines more in a ring of 64: got writes of %v lines, want a third at once", got)
		}
		time.Sleep(2 * logRest)
		all := 0
		for _, n := range lines() {
			all += n
		}
		if all != 81 || l.Dropped() != 0 {
			t.Errorf("after all: got %d lines and %d dropped, want 81 and none", all, l.Dropped())
		}
	})
}

// Long lines are bounded by their bytes, not only by their number.
func TestAccessLogBoundsQueuedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		l := NewAccessLog(w, LogText, 1<<14)
		l.Append(&Record{})
		synctest.Wait()
		numbered := sampleRecord()
		numbered.ID, numbered.number = "", 0x00f1e2d3c4b5a697
		long := &Record{Target: strings.Repeat("\x00", maxTarget)} // fourfold when escaped
		for range 1000 {
			l.Append(long)
		}
		if got := l.queued.Load(); got > maxQueued+int64(5*maxTarget) {
			t.Errorf("queued %d bytes, want about %d", got, maxQueued)
		}
		if l.Dropped() == 0 {
			t.Errorf("dropped 0 of 1000 lines of 8 KiB, want some")
		}
		go io.Copy(io.Discard, r)
		l.Close()
		w.Close()
	})
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestAccessLogCountsFailedWrites(t *testing.T) {
	full := errors.New("disk full")
	l := NewAccessLog(failingWriter{full}, LogText, 0)
	l.Append(sampleRecord())
	if err := l.Close(); !errors.Is(err, full) || l.Dropped() != 1 {
		t.Errorf("got error %v and %d dropped, want %v and 1", err, l.Dropped(), full)
	}
}

func TestAccessLogAllocatesNothing(t *testing.T) {
	l := NewAccessLog(io.Discard, LogJSON, 2)
	defer l.Close()
	r := sampleRecord()
	for range 100 {
		l.Append(r) // grows the two buffers
	}
	if got := testing.AllocsPerRun(1000, func() { l.Append(r) }); got != 0 {
		t.Errorf("allocations per record: got %v, want 0", got)
	}
}

// The drainer's share is in the figure: a full ring is waited for.
func BenchmarkAccessLogAppend(b *testing.B) {
	l := NewAccessLog(io.Discard, LogJSON, 0)
	defer l.Close()
	r := sampleRecord()
	b.ReportAllocs()
	for b.Loop() {
		for dropped := l.Dropped(); ; runtime.Gosched() {
			l.Append(r)
			if now := l.Dropped(); now == dropped {
				break
			} else {
				dropped = now
			}
		}
	}
}

func BenchmarkAppendRecord(b *testing.B) {
	r, buf := sampleRecord(), make([]byte, 0, 1024)
	at := newSecond(r.Time) // lines share it
	b.ReportAllocs()
	for b.Loop() {
		buf = appendRecord(buf[:0], r, LogJSON, at)
	}
}
