package edge

import (
	"bytes"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// LogFormat is how the access log writes a record.
type LogFormat uint8

// The formats: key=value pairs, or one JSON object a line.
const (
	LogText LogFormat = iota
	LogJSON
)

// Record is what is known of one exchange when it ends. Its strings are only
// borrowed during the call it is passed to; an empty one was not known.
type Record struct {
	Time               time.Time // when the request was read
	ID                 string    // 16 hexadecimal digits
	Site               string
	Client             string // an IP address
	Method             string
	Scheme             string
	Host               string
	Target             string // as the client sent it
	Proto              string // "HTTP/1.1", "HTTP/2.0"
	Status             int
	Bytes              int64 // of content sent to the client
	Duration           time.Duration
	FirstByte          time.Duration // from Time to the first byte sent
	Outcome            Outcome
	Detail             string // of Cache-Status
	Origin             string
	OriginTime         time.Duration
	Functions          string // that ran, by name
	TLS                string // its version, "1.3"
	Referer, UserAgent string

	number uint64 // what ID would say, where that is empty
}

// The bounds of what waits to be written: a writer that stalls may cost this
// much memory and no more.
const (
	defaultLines = 8192
	maxQueued    = 4 << 20  // bytes of lines waiting
	lineBytes    = 512      // what a line's buffer starts with
	keptBuffer   = 1 << 10  // a slot keeps a buffer of at most this size
	batchBytes   = 64 << 10 // given to one Write, unless one line is longer
)

// logRest is how long lines gather after others were written: a write for each
// line, and a switch to who writes it, cost a fifth of a small hit. A line that
// comes while there are few is written at once.
const logRest = 10 * time.Millisecond

// AccessLog writes one line a request without ever making one wait. Lines go
// into a bounded ring that a single goroutine drains, at once where few come
// and every 10 ms where many do; what does not fit, or cannot be written, is
// counted and dropped.
type AccessLog struct {
	w      io.Writer
	format LogFormat
	slots  []logSlot // a power of two
	mask   uint64

	tail    atomic.Uint64 // next slot to claim
	head    uint64        // next slot to drain; the drainer's
	queued  atomic.Int64  // bytes in published slots
	dropped atomic.Uint64
	closed  atomic.Bool
	second  atomic.Pointer[second] // of the last line

	state atomic.Uint32 // of the drainer: who changes it to logAwake sends on wake
	wake  chan struct{} // capacity 1
	once  sync.Once
	done  chan struct{}
	err   error // the last failed write; read after done
}

// What the drainer does.
const (
	logAwake   = iota // it looks for lines
	logAsleep         // it waits for a line
	logResting        // it waits for many lines, for logRest at most
)

// logSlot is one place of the ring. seq tells whose turn it is: the ticket of
// the producer that may fill it, that plus one when it may be drained.
type logSlot struct {
	seq  atomic.Uint64
	line []byte
}

// NewAccessLog starts a log that writes to w in format. lines is how many may
// wait to be written, rounded up to a power of two; 0 is 8192. Close ends it;
// w is the caller's to close afterwards.
func NewAccessLog(w io.Writer, format LogFormat, lines int) *AccessLog {
	if lines <= 0 {
		lines = defaultLines
	}
	size := 2 // with one slot, a full ring and a free one look alike
	for size < lines {
		size <<= 1
	}
	l := &AccessLog{
		w: w, format: format,
		slots: make([]logSlot, size), mask: uint64(size - 1),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	for i := range l.slots {
		l.slots[i].seq.Store(uint64(i))
	}
	go l.drain()
	return l
}

// Append queues r's line. It never blocks and allocates nothing once the ring's
// buffers have grown; any number of goroutines may call it.
func (l *AccessLog) Append(r *Record) {
	slot, ticket := l.claim()
	if slot == nil {
		l.dropped.Add(1)
		return
	}
	if l.queued.Load() < maxQueued {
		if slot.line == nil {
			slot.line = make([]byte, 0, lineBytes)
		}
		slot.line = appendRecord(slot.line[:0], r, l.format, l.secondOf(r.Time))
		l.queued.Add(int64(len(slot.line)))
	} else {
		slot.line = slot.line[:0]
		l.dropped.Add(1)
	}
	slot.seq.Store(ticket + 1)
	if state := l.state.Load(); state == logAsleep || state == logResting && l.many(ticket) {
		l.rouse(state)
	}
}

// second is the text of one: the lines of a busy node share it.
type second struct {
	unix int64
	text [20]byte // "2006-01-02T15:04:05."
}

// secondOf returns the text of t's second.
func (l *AccessLog) secondOf(t time.Time) *second {
	if kept := l.second.Load(); kept != nil && kept.unix == t.Unix() {
		return kept
	}
	made := newSecond(t)
	l.second.Store(made)
	return made
}

// newSecond makes it by hand, since AppendFormat interprets its layout. A year
// beyond four digits loses those in front.
func newSecond(t time.Time) *second {
	s := &second{unix: t.Unix()}
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	digits(s.text[0:5], year, '-')
	digits(s.text[5:8], int(month), '-')
	digits(s.text[8:11], day, 'T')
	digits(s.text[11:14], hour, ':')
	digits(s.text[14:17], minute, ':')
	digits(s.text[17:20], second, '.')
	return s
}

// half is how many lines are too many to rest on.
func (l *AccessLog) half() uint64 { return uint64(len(l.slots)) / 2 }

// many reports whether a resting drainer should look at once. Of any half of the
// ring's tickets one says so.
func (l *AccessLog) many(ticket uint64) bool {
	return ticket&(l.half()-1) == 0 || l.queued.Load() >= batchBytes
}

// rouse wakes the drainer if it is still in state.
func (l *AccessLog) rouse(state uint32) {
	if state != logAwake && l.state.CompareAndSwap(state, logAwake) {
		l.wake <- struct{}{} // has room: only who changed the state sends
	}
}

// claim takes the next free slot, or none when the ring is full or closed.
func (l *AccessLog) claim() (*logSlot, uint64) {
	for !l.closed.Load() {
		ticket := l.tail.Load()
		slot := &l.slots[ticket&l.mask]
		seq := slot.seq.Load()
		if seq < ticket {
			return nil, 0 // not drained since the ring last came round
		}
		if seq == ticket && l.tail.CompareAndSwap(ticket, ticket+1) {
			return slot, ticket
		}
	}
	return nil, 0
}

// Dropped is how many records did not reach the writer.
func (l *AccessLog) Dropped() uint64 { return l.dropped.Load() }

// Close writes what is queued, waits for it, and returns the error of the last
// write that failed. Records appended from then on are counted as dropped.
func (l *AccessLog) Close() error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.rouse(logAsleep)
		l.rouse(logResting)
	})
	<-l.done
	return l.err
}

// drain writes batches of lines until the log is closed and empty.
func (l *AccessLog) drain() {
	defer close(l.done)
	batch := make([]byte, 0, batchBytes)
	timer := time.NewTimer(logRest)
	defer timer.Stop()
	for {
		closing := l.closed.Load() // before the look, so that nothing queued earlier is missed
		from := l.head
		batch = l.gather(batch[:0])
		l.write(batch)
		switch {
		case len(batch) >= batchBytes, l.head != from && closing:
		case l.head != from:
			timer.Reset(logRest)
			l.wait(logResting, l.head+l.half()-1, timer.C)
		case !closing:
			l.wait(logAsleep, l.head, nil)
		case l.head == l.tail.Load():
			return
		default:
			runtime.Gosched() // a slot is claimed and its line being made
		}
	}
}

// gather moves published lines into batch until that is full.
func (l *AccessLog) gather(batch []byte) []byte {
	for len(batch) < batchBytes {
		slot := &l.slots[l.head&l.mask]
		if slot.seq.Load() != l.head+1 {
			break
		}
		batch = append(batch, slot.line...)
		l.queued.Add(-int64(len(slot.line)))
		if cap(slot.line) > keptBuffer {
			slot.line = nil
		}
		slot.seq.Store(l.head + uint64(len(l.slots)))
		l.head++
	}
	return batch
}

func (l *AccessLog) write(batch []byte) {
	if len(batch) == 0 {
		return
	}
	if _, err := l.w.Write(batch); err != nil {
		l.err = err
		l.dropped.Add(uint64(bytes.Count(batch, []byte{'\n'})))
	}
}

// wait waits to be woken, or for the end of a rest. It says so first and then
// looks once more, at the slot of the ticket that it waits for: who publishes
// after that look sees the state and wakes it.
func (l *AccessLog) wait(state uint32, ticket uint64, end <-chan time.Time) {
	l.state.Store(state)
	if l.slots[ticket&l.mask].seq.Load() == ticket+1 || l.closed.Load() {
		if l.state.CompareAndSwap(state, logAwake) {
			return
		}
	}
	select {
	case <-l.wake:
	case <-end:
		if !l.state.CompareAndSwap(state, logAwake) {
			<-l.wake
		}
	}
}

// The longest value written of each kind, in bytes before escaping. Clients
// choose the values, so the line's length must not be theirs to choose.
const (
	maxTarget = 2048
	maxAgent  = 512
	maxValue  = 256
)

// appendRecord appends r as one line, with its line feed. at is its second.
func appendRecord(b []byte, r *Record, format LogFormat, at *second) []byte {
	e := encoder{b: b, json: format == LogJSON}
	e.time(at, r.Time.Nanosecond())
	if r.ID == "" && r.number != 0 {
		e.name(" id=", `,"id":"`)
		e.b = appendHex(e.b, r.number)
		e.quote()
	}
	e.text(" id=", `,"id":`, r.ID, maxValue)
	e.text(" site=", `,"site":`, r.Site, maxValue)
	e.text(" client=", `,"client":`, r.Client, maxValue)
	e.text(" method=", `,"method":`, r.Method, maxValue)
	e.url(r.Scheme, r.Host, r.Target)
	e.text(" protocol=", `,"protocol":`, r.Proto, maxValue)
	e.int(" status=", `,"status":`, int64(r.Status))
	e.int(" bytes=", `,"bytes":`, r.Bytes)
	e.seconds(" duration=", `,"duration":`, r.Duration)
	e.seconds(" first_byte=", `,"first_byte":`, r.FirstByte)
	e.text(" outcome=", `,"outcome":`, r.Outcome.String(), maxValue)
	e.text(" detail=", `,"detail":`, r.Detail, maxValue)
	if r.Origin != "" {
		e.text(" origin=", `,"origin":`, r.Origin, maxValue)
		e.seconds(" origin_duration=", `,"origin_duration":`, r.OriginTime)
	}
	e.text(" functions=", `,"functions":`, r.Functions, maxValue)
	e.text(" tls=", `,"tls":`, r.TLS, maxValue)
	e.text(" referer=", `,"referer":`, r.Referer, maxAgent)
	e.text(" user_agent=", `,"user_agent":`, r.UserAgent, maxAgent)
	if e.json {
		e.b = append(e.b, '}')
	}
	return append(e.b, '\n')
}

// encoder appends fields in either format. A name comes as each of them writes
// it, with what stands between it and the field before; names need no escaping.
// Empty strings are left out.
type encoder struct {
	b    []byte
	json bool
}

func (e *encoder) name(text, json string) {
	if e.json {
		text = json
	}
	e.b = append(e.b, text...)
}

// quote ends what is a string in JSON.
func (e *encoder) quote() {
	if e.json {
		e.b = append(e.b, '"')
	}
}

// time writes a second and what has passed of it, to the millisecond and in UTC
// (RFC 3339), as the first field.
func (e *encoder) time(at *second, nanoseconds int) {
	e.name("time=", `{"time":"`)
	var d [4]byte
	digits(d[:], nanoseconds/1e6, 'Z')
	e.b = append(append(e.b, at.text[:]...), d[:]...)
	e.quote()
}

// digits fills d with the last digits of v, which is not negative, and with
// after behind them.
func digits(d []byte, v int, after byte) {
	last := len(d) - 1
	d[last] = after
	for i := last - 1; i >= 0; i-- {
		d[i] = byte('0' + v%10)
		v /= 10
	}
}

func (e *encoder) int(text, json string, v int64) {
	e.name(text, json)
	e.b = strconv.AppendInt(e.b, v, 10)
}

// seconds writes d as seconds with six decimals; a negative one is 0.
func (e *encoder) seconds(text, json string, v time.Duration) {
	e.name(text, json)
	micros := max(v.Microseconds(), 0)
	var d [7]byte
	digits(d[:], int(micros%1e6), 0)
	e.b = strconv.AppendInt(e.b, micros/1e6, 10)
	e.b = append(e.b, '.')
	e.b = append(e.b, d[:6]...)
}

func (e *encoder) text(text, json, v string, limit int) {
	if v == "" {
		return
	}
	e.name(text, json)
	if !e.json && plain(v) && len(v) <= limit {
		e.b = append(e.b, v...)
		return
	}
	e.b = append(e.b, '"')
	e.escape(v, limit)
	e.b = append(e.b, '"')
}

// url writes scheme, host and target as one quoted value.
func (e *encoder) url(scheme, host, target string) {
	e.name(` url="`, `,"url":"`)
	if host != "" {
		e.escape(scheme, maxValue)
		e.b = append(e.b, "://"...)
		e.escape(host, maxValue)
	}
	e.escape(target, maxTarget)
	e.b = append(e.b, '"')
}

// appendHex appends v as 16 hexadecimal digits.
func appendHex(b []byte, v uint64) []byte {
	var d [16]byte
	for i := range d {
		d[i] = "0123456789abcdef"[v>>(60-4*i)&15]
	}
	return append(b, d[:]...)
}

// plain reports whether v can stand in a text line as it is: no white space,
// quote, backslash or equals sign, nothing that a terminal would obey.
func plain(v string) bool {
	for i := range len(v) {
		if c := v[i]; !asIs(c) || c == ' ' || c == '=' {
			return false
		}
	}
	return true
}

// span is how many bytes at the beginning of v can stand between quotes as they
// are. Nearly always that is all of them, so it looks at eight at once.
func span(v string) int {
	const each, top = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(v); i += 8 {
		x := uint64(v[i]) | uint64(v[i+1])<<8 | uint64(v[i+2])<<16 | uint64(v[i+3])<<24 |
			uint64(v[i+4])<<32 | uint64(v[i+5])<<40 | uint64(v[i+6])<<48 | uint64(v[i+7])<<56
		// With no byte's top bit set, y-each has that bit where y's byte is 0, and
		// perhaps in bytes above such a one: none is missed.
		quote, slash, del := x^each*'"', x^each*'\\', x^each*0x7f
		if (x|(x-each*' ')|(quote-each)|(slash-each)|(del-each))&top != 0 {
			break
		}
	}
	for i < len(v) && asIs(v[i]) {
		i++
	}
	return i
}

// asIs reports whether c can stand between quotes in either format.
func asIs(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

// escape appends at most limit bytes of v, then "..." if there were more. In
// text, everything but printable ASCII is written \xNN, so that a line stays a
// line and a terminal shows it. In JSON, valid UTF-8 stays, controls (C1 and
// line separators too) are \uNNNN, and a byte that is no UTF-8 is \ufffd.
func (e *encoder) escape(v string, limit int) {
	const hex = "0123456789abcdef"
	cut := len(v) > limit
	if cut {
		v = v[:limit]
	}
	for i := 0; i < len(v); {
		from := i
		i += span(v[i:])
		e.b = append(e.b, v[from:i]...)
		if i == len(v) {
			break
		}
		switch c := v[i]; {
		case c == '"' || c == '\\':
			e.b = append(e.b, '\\', c)
			i++
		case !e.json:
			e.b = append(e.b, '\\', 'x', hex[c>>4], hex[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(v[i:])
			if r >= 0xa0 && r != utf8.RuneError && r != 0x2028 && r != 0x2029 {
				e.b = append(e.b, v[i:i+n]...)
			} else {
				e.b = append(e.b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			}
			i += n
		}
	}
	if cut {
		e.b = append(e.b, "..."...)
	}
}
