package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"seawall/wasm"
	"seawall/wasm/abi"
)

// wasmBenchCommand is `seawall wasm bench FILE`.
type wasmBenchCommand struct {
	File     string        `arg:"" help:"The WebAssembly module."`
	Request  string        `placeholder:"FILE" help:"The request, as HTTP/1.1 text (GET / of a browser)."`
	Response string        `placeholder:"FILE" help:"What the origin answers, as HTTP/1.1 text (200 with a line)."`
	Config   string        `placeholder:"TEXT" help:"Its configuration; @FILE takes a file's content."`
	VMConfig string        `name:"vm-config" placeholder:"TEXT" help:"The same for the machine as a whole (proxy-wasm); @FILE takes a file's content."`
	Limit    []string      `sep:"none" placeholder:"NAME=VALUE" help:"A limit, as cpu=10ms. May be repeated."`
	Origin   bool          `help:"Run it at the origin's side: origin_request and origin_response."`
	For      time.Duration `placeholder:"TIME" default:"3s" help:"How long to measure, in all (3s)."`
	JSON     bool          `name:"json" help:"Print JSON."`
}

// Help is shown under the command's flags.
func (*wasmBenchCommand) Help() string {
	return "The module is loaded as a node does it, and sees the same exchange again and again on one processor: pooled (mode shared) and reset (mode reset), by turns.\n" +
		"Nothing is sent anywhere: calls to upstreams fail, and so does what takes keys or data of a node. Times are medians of short rounds, and of the whole exchange, the host's part with it; those of a stage are the guest's alone, and means.\n" +
		"The exit code is 1 if the function fails.\n\nExample:\n  seawall wasm bench headers.wasm --request req.http --config 'X-Frame-Options: DENY'"
}

// The shape of --json.
type (
	benchBody struct {
		File  string      `json:"file"`
		ABI   string      `json:"abi"`
		Size  int         `json:"size"`
		Modes []benchMode `json:"modes"`
	}
	benchMode struct {
		Mode        string       `json:"mode"`              // "shared" or "reset"
		Refused     string       `json:"refused,omitempty"` // why it cannot run in it; then there is no more
		Result      string       `json:"result,omitempty"`  // "continue" or "answered"
		Requests    int64        `json:"requests"`
		Micros      float64      `json:"request_us"` // median
		Fastest     float64      `json:"request_us_least"`
		Slowest     float64      `json:"request_us_most"` // of the rounds
		Allocations float64      `json:"allocations"`     // of the host, for a request
		Allocated   float64      `json:"allocated_bytes"`
		Fuel        float64      `json:"fuel"`
		Memory      int64        `json:"memory_bytes"` // of a machine
		Rewrite     float64      `json:"rewrite_seconds"`
		Compile     float64      `json:"compile_seconds"`
		Start       float64      `json:"instantiate_seconds"`
		Stages      []benchStage `json:"stages"`
	}
	benchStage struct {
		Stage  string  `json:"stage"`
		Calls  float64 `json:"calls"` // for a request
		Micros float64 `json:"us"`
		Fuel   float64 `json:"fuel"`
	}
)

// Run measures the module.
func (c *wasmBenchCommand) Run(t *terminal) error {
	if c.For < time.Millisecond || c.For > time.Hour {
		return &usageError{"--for: write a duration from 1ms to 1h"}
	}
	options, err := (&wasmTestCommand{Config: c.Config, VMConfig: c.VMConfig, Mode: "default", Limit: c.Limit}).options()
	if err != nil {
		return err
	}
	source, err := readModule(c.File)
	if err != nil {
		return fmt.Errorf("%w (hint: FILE is a WebAssembly module)", err)
	}
	b := &bench{spec: options.spec("bench", source), origin: c.Origin, length: c.For, lines: new(logLines)}
	if err := b.messages(c.Request, c.Response); err != nil {
		return err
	}
	if err := b.run(c.File); err != nil {
		for _, l := range b.lines.all() { // of a guest that says why it does not start
			fmt.Fprintf(t.err, "log        %s: %s\n", l.Level, clipped(l.Text))
		}
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if c.JSON {
		return printJSON(t.out, &b.out)
	}
	return b.out.print(t.out)
}

// bench measures one module.
type bench struct {
	spec              wasm.Spec
	request, response *abi.Message
	sent, answer      []byte
	origin            bool
	length            time.Duration
	lines             *logLines
	out               benchBody
}

// messages reads the exchange, or makes one up.
func (b *bench) messages(request, response string) (err error) {
	b.request = &abi.Message{Method: "GET", Scheme: "https", Authority: "www.example.com", Target: "/", Header: http.Header{
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}, "Accept": {"text/html,*/*;q=0.8"},
		"Accept-Language": {"en-US,en;q=0.5"}, "Accept-Encoding": {"gzip, deflate, br, zstd"}}}
	if request != "" {
		if b.request, b.sent, err = readMessage(request, parseRequest); err != nil {
			return err
		}
	}
	b.response, b.answer = &abi.Message{Status: 200, Header: http.Header{"Content-Type": {"text/html"}, "Cache-Control": {"max-age=60"}}}, []byte("the origin's answer\n")
	if response != "" {
		b.response, b.answer, err = readMessage(response, parseResponse)
	}
	return err
}

// contender is the module in one mode, on a host of its own: on one, the second
// would find compiled what the first compiled.
type contender struct {
	mode   *benchMode
	host   *wasm.Host
	f      *wasm.Function
	chain  *wasm.Chain
	rounds []float64 // µs for a request
}

// run measures both modes by turns, so that what else the machine does is in
// both.
func (b *bench) run(file string) (err error) {
	b.out = benchBody{File: file, Size: len(b.spec.Source), Modes: make([]benchMode, 2)}
	var all []*contender
	for i, mode := range []wasm.Mode{wasm.ModeShared, wasm.ModeReset} {
		c, e := b.load(mode, &b.out.Modes[i])
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, c.close()) }()
		if c.f != nil {
			all = append(all, c)
			b.out.ABI = c.f.ABI()
		}
	}
	if len(all) == 0 {
		return errors.New(b.out.Modes[0].Refused)
	}
	return b.measure(all)
}

// load loads the module in a mode. A refusal is noted, and leaves no function.
func (b *bench) load(mode wasm.Mode, into *benchMode) (*contender, error) {
	host, err := wasm.NewHost(wasm.Options{Log: slog.New(b.lines)})
	if err != nil {
		return nil, err
	}
	c := &contender{mode: into, host: host}
	into.Mode, into.Stages = [...]string{wasm.ModeShared: "shared", wasm.ModeReset: "reset"}[mode], []benchStage{}
	spec := b.spec
	spec.Mode = mode
	if c.f, err = host.Load(context.Background(), spec); err != nil {
		into.Refused = strings.TrimPrefix(err.Error(), "wasm: function bench: ")
		return c, nil
	}
	c.chain = wasm.NewChain([]*wasm.Function{c.f})
	took := c.f.Took()
	into.Rewrite, into.Compile, into.Start = took.Rewrite.Seconds(), took.Compile.Seconds(), took.Start.Seconds()
	return c, nil
}

func (c *contender) close() error {
	if c.f != nil {
		c.chain.Close()
		c.f.Close()
	}
	return c.host.Close()
}

const (
	benchRound = 5 * time.Millisecond // as long as a round is to be
	benchMost  = 256                  // requests of a round
)

// measure has the contenders run by turns until the time is over.
func (b *bench) measure(all []*contender) error {
	counts, before := make([]int, len(all)), make([]wasm.Stats, len(all))
	for i, c := range all {
		counts[i] = 1
		if _, err := c.round(b.prepare(16)); err != nil { // the first are slower
			return err
		}
		took, err := c.round(b.prepare(16))
		if err != nil {
			return err
		}
		counts[i] = min(max(int(benchRound*16/max(took, 1)), 1), benchMost)
		before[i] = c.f.Stats()
	}
	for began := time.Now(); len(all[0].rounds) == 0 || time.Since(began) < b.length; {
		for i, c := range all {
			took, err := c.round(b.prepare(counts[i]))
			if err != nil {
				return err
			}
			c.mode.Requests += int64(counts[i])
			c.rounds = append(c.rounds, took.Seconds()*1e6/float64(counts[i]))
		}
	}
	for i, c := range all {
		c.note(before[i], c.f.Stats())
		if err := c.allocations(b.prepare(benchMost)); err != nil {
			return err
		}
	}
	return nil
}

// prepared is one exchange to be run, and the response for it.
type prepared struct {
	abi.Exchange
	response abi.Message
}

// prepare makes n exchanges, which is not measured.
func (b *bench) prepare(n int) []prepared {
	list := make([]prepared, n)
	for i := range list {
		p := &list[i]
		p.Exchange = *(&trial{request: b.request, sent: b.sent}).exchange(b.origin)
		p.response = abi.Message{Status: b.response.Status, Header: copied(b.response.Header), Source: bytes.NewReader(b.answer)}
	}
	return list
}

// round runs exchanges one after the other, and returns how long they took.
func (c *contender) round(list []prepared) (time.Duration, error) {
	began := time.Now()
	for i := range list {
		if err := c.one(&list[i]); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// one runs one exchange, as the node's walk does.
func (c *contender) one(p *prepared) error {
	x := &p.Exchange
	run := c.chain.Begin(context.Background(), x)
	defer run.End()
	result := run.Request()
	c.mode.Result = "answered"
	if result.Verdict == wasm.Continue {
		c.mode.Result = "continue"
		if x.Request.Source != nil {
			if _, err := io.Copy(io.Discard, run.RequestBody(io.NopCloser(x.Request.Source))); err != nil {
				return err
			}
		}
		x.Response, x.Cache.Status = p.response, "miss"
	}
	if result.Verdict != wasm.Failed {
		result = run.Response()
	}
	if result.Verdict == wasm.Failed {
		return fmt.Errorf("the function failed in mode %s, at %s: %s (hint: seawall wasm test tells more)", c.mode.Mode, wasm.StageNames()[x.Stage], result.Reason)
	}
	if x.Response.Source == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, run.ResponseBody(x.Response.Source))
	return err
}

// note takes over what was measured and counted.
func (c *contender) note(before, after wasm.Stats) {
	m, n := c.mode, float64(c.mode.Requests)
	slices.Sort(c.rounds)
	m.Micros, m.Fastest, m.Slowest = c.rounds[len(c.rounds)/2], c.rounds[0], c.rounds[len(c.rounds)-1]
	if after.Machines > 0 {
		m.Memory = after.Memory / int64(after.Machines)
	}
	for i, name := range wasm.StageNames() {
		was, is := &before.Stages[i], &after.Stages[i]
		if is.Calls == was.Calls {
			continue
		}
		fuel := float64(is.Fuel-was.Fuel) / n
		m.Fuel += fuel
		m.Stages = append(m.Stages, benchStage{name, float64(is.Calls-was.Calls) / n, (is.Duration - was.Duration).Seconds() * 1e6 / n, fuel})
	}
}

// allocations counts what the host allocates for a request.
func (c *contender) allocations(list []prepared) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.round(list)
	runtime.ReadMemStats(&after)
	c.mode.Allocations = float64(after.Mallocs-before.Mallocs) / float64(len(list))
	c.mode.Allocated = float64(after.TotalAlloc-before.TotalAlloc) / float64(len(list))
	return err
}

// print writes a table, a column for each mode.
func (b *benchBody) print(w io.Writer) error {
	fmt.Fprintf(w, "module     %s: %s, %s\n", oneLine(b.File), b.ABI, showBytes(int64(b.Size)))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(m *benchMode) string) {
		line := name
		for i := range b.Modes {
			text := "-"
			if b.Modes[i].Refused == "" {
				text = cell(&b.Modes[i])
			}
			line += "\t" + text
		}
		fmt.Fprintln(table, line+"\t")
	}
	fmt.Fprintln(table, "\tpooled\treset\t")
	row("µs a request", func(m *benchMode) string { return fmt.Sprintf("%.2f", m.Micros) })
	row("least round", func(m *benchMode) string { return fmt.Sprintf("%.2f", m.Fastest) })
	row("most", func(m *benchMode) string { return fmt.Sprintf("%.2f", m.Slowest) })
	for _, name := range wasm.StageNames() {
		of := func(m *benchMode) *benchStage {
			if i := slices.IndexFunc(m.Stages, func(s benchStage) bool { return s.Stage == name }); i >= 0 {
				return &m.Stages[i]
			}
			return nil
		}
		if of(&b.Modes[0]) == nil && of(&b.Modes[1]) == nil {
			continue
		}
		row(name+", mean", func(m *benchMode) string {
			if s := of(m); s != nil {
				return fmt.Sprintf("%.2f", s.Micros)
			}
			return "-"
		})
	}
	row("fuel", func(m *benchMode) string { return fmt.Sprintf("%.0f", m.Fuel) })
	row("allocations", func(m *benchMode) string { return fmt.Sprintf("%.1f", m.Allocations) })
	row("bytes of them", func(m *benchMode) string { return fmt.Sprintf("%.0f", m.Allocated) })
	row("memory of a machine", func(m *benchMode) string { return showBytes(m.Memory) })
	row("requests", func(m *benchMode) string { return fmt.Sprint(m.Requests) })
	took := func(seconds float64) string {
		return time.Duration(seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
	}
	row("rewriting", func(m *benchMode) string { return took(m.Rewrite) })
	row("compiling", func(m *benchMode) string { return took(m.Compile) })
	row("starting a machine", func(m *benchMode) string { return took(m.Start) })
	if err := table.Flush(); err != nil {
		return err
	}
	for i := range b.Modes {
		if m := &b.Modes[i]; m.Refused != "" {
			fmt.Fprintf(w, "mode %s is refused: %s\n", m.Mode, clipped(m.Refused))
		}
	}
	return nil
}
