package proxywasm

import (
	"errors"
	"strings"
	"time"

	"seawall/wasm/abi"
)

// statusOf translates an error of a service. Its words stay in the node.
func statusOf(err error) uint32 {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, abi.ErrNotFound):
		return statusNotFound
	case errors.Is(err, abi.ErrArgument):
		return statusBadArgument
	case errors.Is(err, abi.ErrCASMismatch):
		return statusCASMismatch
	default:
		return statusInternalFailure
	}
}

func milliseconds(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }

func log(g *guest, f *frame) uint32 {
	if f.num[0] > levelCritical {
		return statusBadArgument
	}
	text := f.in[0][:min(len(f.in[0]), g.services.FieldLimit())]
	g.services.Log(abi.Level(f.num[0]), string(text))
	return statusOK
}

func logLevel(g *guest, f *frame) uint32 {
	return g.put32(f, 0, uint32(g.services.LogLevel()))
}

func currentTime(g *guest, f *frame) uint32 {
	return g.put64(f, 0, uint64(time.Now().UnixNano()))
}

func setTickPeriod(g *guest, f *frame) uint32 {
	g.tick = milliseconds(f.num[0])
	return statusOK
}

// exchange is the effective context's, nil for the root and where it may not
// be touched.
func (g *guest) exchange() *abi.Exchange {
	if s := g.effective; s.open() {
		return s.x
	}
	return nil
}

// property gives a property of the plugin or of the exchange. A root context
// id is what C++ modules register their classes under: it is empty unless the
// services say otherwise.
func property(g *guest, f *frame) uint32 {
	if len(f.in[0]) > maxPath {
		return statusNotFound
	}
	path := string(f.in[0])
	switch strings.TrimSuffix(path, "\x00") {
	case "plugin_name":
		return give(g, f, 0, g.services.Name())
	case "plugin_root_id":
		id := ""
		if s, ok := g.services.(interface{ RootID() string }); ok {
			id = s.RootID()
		}
		return give(g, f, 0, id)
	case "plugin_vm_id":
		return give(g, f, 0, "")
	}
	x := g.exchange()
	if x == nil {
		return statusNotFound
	}
	value, ok := x.Property(path)
	if !ok {
		return statusNotFound
	}
	return give(g, f, 0, value)
}

// maxPath is how many bytes the path of a property may have; longer ones name
// nothing.
const maxPath = 4 << 10

func setProperty(g *guest, f *frame) uint32 {
	x := g.exchange()
	if x == nil || len(f.in[0]) > maxPath {
		return statusNotFound
	}
	if len(f.in[1]) > g.services.FieldLimit() {
		return statusBadArgument
	}
	return statusOf(x.SetProperty(string(f.in[0]), append([]byte(nil), f.in[1]...)))
}

func callForeign(g *guest, f *frame) uint32 {
	if len(f.in[0]) > maxPath || len(f.in[1]) > g.services.FieldLimit() {
		return statusBadArgument
	}
	result, err := g.services.Foreign(g.exchange(), string(f.in[0]), append([]byte(nil), f.in[1]...))
	if err != nil {
		return statusOf(err)
	}
	return give(g, f, 0, result)
}

func sharedData(g *guest, f *frame) uint32 {
	if len(f.in[0]) > g.services.FieldLimit() {
		return statusNotFound
	}
	value, cas, ok := g.services.SharedGet(string(f.in[0]))
	if !ok {
		return statusNotFound
	}
	if s := give(g, f, 0, value); s != statusOK {
		return s
	}
	return g.put32(f, 2, cas)
}

func setSharedData(g *guest, f *frame) uint32 {
	if len(f.in[0])+len(f.in[1]) > g.services.FieldLimit() {
		return statusBadArgument
	}
	return statusOf(g.services.SharedSet(string(f.in[0]), append([]byte(nil), f.in[1]...), uint32(f.num[0])))
}

func defineMetric(g *guest, f *frame) uint32 {
	if f.num[0] > metricHistogram || len(f.in[0]) == 0 || len(f.in[0]) > maxPath {
		return statusBadArgument
	}
	id, err := g.services.MetricDefine(abi.MetricKind(f.num[0]), string(f.in[0]))
	if err != nil {
		return statusOf(err)
	}
	return g.put32(f, 0, id)
}

func incrementMetric(g *guest, f *frame) uint32 {
	return statusOf(g.services.MetricAdd(uint32(f.num[0]), int64(f.num[1])))
}

func recordMetric(g *guest, f *frame) uint32 {
	return statusOf(g.services.MetricSet(uint32(f.num[0]), f.num[1]))
}

func metric(g *guest, f *frame) uint32 {
	v, err := g.services.MetricGet(uint32(f.num[0]))
	if err != nil {
		return statusOf(err)
	}
	return g.put64(f, 0, v)
}

// configuration gives what 0.1.0 has instead of buffers 6 and 7.
func configuration(g *guest, f *frame) uint32 {
	if g.starting {
		return give(g, f, 0, g.services.VMConfig())
	}
	return give(g, f, 0, g.services.Config())
}
