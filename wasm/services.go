package wasm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"seawall/wasm/abi"
)

// services are what the node does for one machine: those of its function,
// charged to the request whose callback runs.
type services struct{ m *machine }

// Name implements abi.Services.
func (s services) Name() string { return s.m.f.name }

// Config implements abi.Services.
func (s services) Config() []byte { return s.m.f.config }

// VMConfig implements abi.Services.
func (s services) VMConfig() []byte { return s.m.f.vmConfig }

// BodyLimit implements abi.Services.
func (s services) BodyLimit() int64 { return s.m.f.limits.Body }

// FieldLimit implements abi.Services.
func (s services) FieldLimit() int { return s.m.f.limits.Field }

// logLine is how many bytes of a line are kept.
const logLine = 2048

// levels translates guests' levels.
var levels = [...]slog.Level{
	abi.Trace: slog.LevelDebug - 4, abi.Debug: slog.LevelDebug, abi.Info: slog.LevelInfo,
	abi.Warn: slog.LevelWarn, abi.Error: slog.LevelError, abi.Critical: slog.LevelError + 4,
}

// LogLevel implements abi.Services.
func (s services) LogLevel() abi.Level {
	for l, level := range levels {
		if s.m.f.host.log.Enabled(context.Background(), level) {
			return abi.Level(l)
		}
	}
	return abi.Critical + 1
}

// Log implements abi.Services. What is over the limit of a request is
// counted, not written.
func (s services) Log(level abi.Level, line string) {
	if level < 0 || int(level) >= len(levels) || s.m.quiet || !s.m.f.host.log.Enabled(context.Background(), levels[level]) {
		return
	}
	if l := s.m.ledger; l != nil {
		if l.logBytes+len(line) > s.m.f.limits.LogBytes {
			s.m.f.dropped.Add(1)
			return
		}
		l.logBytes += len(line) + 1
	}
	s.m.f.log.Log(context.Background(), levels[level], "edge function", "function", s.m.f.name, "text", clean(line))
}

// clean makes a guest's text fit for a log: bounded, without control
// characters, in UTF-8.
func clean(text string) string {
	if len(text) > logLine {
		text = text[:logLine]
	}
	text = strings.TrimRight(text, "\r\n")
	odd := func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029'
	}
	if !strings.ContainsFunc(text, odd) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if odd(r) {
			return ' '
		}
		return r
	}, text)
}

// Foreign implements abi.Services. What is called may take long, as verifying
// a signature does: the next host call looks at the clock.
func (s services) Foreign(x *abi.Exchange, name string, args []byte) ([]byte, error) {
	if f, ok := s.m.f.foreign[name]; ok {
		s.m.budget.owed += s.m.budget.slice
		return f(x, args)
	}
	f, ok := s.m.f.host.foreign[name]
	if !ok {
		return nil, abi.ErrNotFound
	}
	return f(x, s.m.f.name, args)
}

// shared is what the guests of a function keep together.
type shared struct {
	mu      sync.Mutex
	values  map[string]value
	bytes   int64
	serial  uint32
	metrics []metric
}

type value struct {
	data []byte
	cas  uint32
}

// entryCost is what an entry is charged beside its bytes.
const entryCost = 128

// SharedGet implements abi.Services.
func (s services) SharedGet(key string) ([]byte, uint32, bool) {
	d := &s.m.f.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.values[key]
	return bytes.Clone(v.data), v.cas, ok
}

// SharedSet implements abi.Services.
func (s services) SharedSet(key string, data []byte, cas uint32) error {
	if s.m.quiet {
		return nil
	}
	d := &s.m.f.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.values[key]
	if cas != 0 && old.cas != cas {
		return abi.ErrCASMismatch
	}
	total := d.bytes + int64(len(data)-len(old.data))
	if !ok {
		total += int64(len(key)) + entryCost
	}
	if total > s.m.f.limits.SharedData {
		return abi.ErrLimit
	}
	d.bytes = total
	if d.values == nil {
		d.values = map[string]value{}
	}
	if d.serial++; d.serial == 0 {
		d.serial = 1 // 0 sets unconditionally
	}
	d.values[key] = value{bytes.Clone(data), d.serial}
	return nil
}

// metric is one that a guest defined.
type metric struct {
	kind  abi.MetricKind
	name  string
	value uint64 // of a histogram: the sum of what was recorded
	count uint64
}

// metricName is how long a name may be.
const metricName = 256

// MetricDefine implements abi.Services. A name defined again gives its id.
func (s services) MetricDefine(kind abi.MetricKind, name string) (uint32, error) {
	if name == "" || len(name) > metricName || kind > abi.Histogram {
		return 0, abi.ErrArgument
	}
	d := &s.m.f.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, m := range d.metrics {
		if m.name == name {
			if m.kind != kind {
				return 0, abi.ErrArgument
			}
			return uint32(i), nil
		}
	}
	if len(d.metrics) >= s.m.f.limits.Metrics {
		return 0, abi.ErrLimit
	}
	d.metrics = append(d.metrics, metric{kind: kind, name: clean(name)})
	return uint32(len(d.metrics) - 1), nil
}

// withMetric runs do on a metric, with the lock held.
func (s services) withMetric(id uint32, do func(*metric) error) error {
	d := &s.m.f.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	if int64(id) >= int64(len(d.metrics)) {
		return abi.ErrNotFound
	}
	return do(&d.metrics[id])
}

// MetricAdd implements abi.Services.
func (s services) MetricAdd(id uint32, delta int64) error {
	return s.withMetric(id, func(m *metric) error {
		if m.kind == abi.Histogram || m.kind == abi.Counter && delta < 0 {
			return abi.ErrArgument
		}
		if !s.m.quiet {
			m.value += uint64(delta)
		}
		return nil
	})
}

// MetricSet implements abi.Services.
func (s services) MetricSet(id uint32, v uint64) error {
	return s.withMetric(id, func(m *metric) error {
		switch {
		case s.m.quiet:
		case m.kind == abi.Histogram:
			m.value += v
			m.count++
		default:
			m.value = v
		}
		return nil
	})
}

// MetricGet implements abi.Services.
func (s services) MetricGet(id uint32) (v uint64, err error) {
	err = s.withMetric(id, func(m *metric) error {
		v = m.value
		return nil
	})
	return v, err
}

// Upstream is a target that functions may be allowed to call.
type Upstream struct {
	// URL has scheme and host, "http" or "https"; a path is put before the
	// call's.
	URL string
	// Timeout is the longest that a call may take; 0: 5s.
	Timeout time.Duration
	// MaxInFlight bounds calls under way; 0: 64.
	MaxInFlight int
	// AllowPrivate permits loopback, link-local and private addresses.
	AllowPrivate bool
}

func (h *Host) setUpstreams(list map[string]Upstream) error {
	for name, u := range list {
		e, err := newEgress(u)
		if err != nil {
			return fmt.Errorf("wasm: upstream %q: %w", name, err)
		}
		h.upstreams[name] = e
	}
	return nil
}
