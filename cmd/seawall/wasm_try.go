package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"seawall/wasm"
	"seawall/wasm/abi"
	"seawall/wasm/extras"
)

// wasmTestCommand is `seawall wasm test FILE`.
type wasmTestCommand struct {
	File     string   `arg:"" help:"The WebAssembly module."`
	Request  string   `required:"" placeholder:"REQ.http" help:"The request, as an HTTP message."`
	Response string   `placeholder:"RESP.http" help:"What the origin answers, as an HTTP message (200 with a line of text)."`
	Config   string   `sep:"none" placeholder:"TEXT" help:"The function's configuration; @FILE takes a file's content."`
	VMConfig string   `name:"vm-config" sep:"none" placeholder:"TEXT" help:"The machine's configuration (proxy-wasm); @FILE takes a file's content."`
	Mode     string   `default:"default" placeholder:"MODE" help:"default, shared or reset (default)."`
	Limit    []string `sep:"none" placeholder:"NAME=VALUE" help:"A limit, as cpu=10ms. May be repeated."`
	Origin   bool     `help:"Run it at the origin's side: origin_request and origin_response."`
	JSON     bool     `name:"json" help:"Print JSON."`
}

// Help is shown under the command's flags.
func (*wasmTestCommand) Help() string {
	return "The module is loaded as a node does it, with its limits, and sees one exchange. Nothing is sent anywhere: calls to upstreams fail.\n" +
		"A message is a start line, fields, an empty line and the content, which is all that follows. The exit code is 1 if the function fails.\n\nExample:\n" +
		"  printf 'GET /a HTTP/1.1\\nHost: shop.example.com\\n\\n' > req.http\n  seawall wasm test headers.wasm --request req.http --config 'X-Frame-Options: DENY'"
}

// The shape of --json.
type (
	trialBody struct {
		File    string                `json:"file"`
		ABI     string                `json:"abi"`
		Mode    string                `json:"mode"`
		Load    float64               `json:"load_seconds"`
		Result  string                `json:"result"` // "continue", "answered" or "failed"
		Stage   string                `json:"stage,omitempty"`
		Reason  string                `json:"reason,omitempty"`
		Sent    *changeBody           `json:"request"`  // to the origin; null when it was not asked
		Got     *changeBody           `json:"response"` // to the client; null when it failed
		Cache   *cacheBody            `json:"cache"`    // what it decided of caching; null for nothing
		Log     []lineBody            `json:"log"`
		Stages  map[string]trialStage `json:"stages"`
		Memory  int64                 `json:"memory_bytes"`
		Metrics map[string]uint64     `json:"metrics"`
	}
	// changeBody is a message as the function left it. Of an answer, all of it
	// counts as added.
	changeBody struct {
		Start     string   `json:"start"`
		StartWas  string   `json:"start_was,omitempty"` // if it changed
		Removed   []string `json:"removed"`
		Added     []string `json:"added"`
		Size      int      `json:"content_bytes"`
		Replaced  bool     `json:"content_changed"`
		Content   string   `json:"content,omitempty"` // if it changed, up to 4 KiB
		Truncated bool     `json:"content_truncated,omitempty"`
	}
	cacheBody struct {
		Key  string   `json:"key,omitempty"`
		TTL  *float64 `json:"ttl_seconds,omitempty"`
		Tags []string `json:"tags,omitempty"`
	}
	lineBody struct {
		Level string `json:"level"`
		Text  string `json:"text"`
	}
	trialStage struct {
		Calls   int64            `json:"calls"`
		Seconds float64          `json:"seconds"`
		Fuel    int64            `json:"fuel"`
		Traps   map[string]int64 `json:"traps,omitempty"`
	}
)

// shownContent is how much of changed content is printed.
const shownContent = 4 << 10

// Run runs the module on the request.
func (c *wasmTestCommand) Run(t *terminal) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	source, err := readModule(c.File)
	if err != nil {
		return fmt.Errorf("%w (hint: FILE is a WebAssembly module)", err)
	}
	trial := &trial{lines: new(logLines), out: trialBody{File: c.File, Log: []lineBody{}, Stages: make(map[string]trialStage)}}
	if trial.request, trial.sent, err = readMessage(c.Request, parseRequest); err != nil {
		return err
	}
	trial.response, trial.answer = &abi.Message{Status: 200, Header: http.Header{"Content-Type": {"text/plain"}}}, []byte("the origin's answer\n")
	if c.Response != "" {
		if trial.response, trial.answer, err = readMessage(c.Response, parseResponse); err != nil {
			return err
		}
	}
	failed, err := trial.whole(options.spec("test", source), c.Origin)
	if err != nil {
		for _, l := range trial.lines.all() { // of a guest that says why it does not start
			fmt.Fprintf(t.err, "log        %s: %s\n", l.Level, clipped(l.Text))
		}
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if c.JSON {
		err = printJSON(t.out, &trial.out)
	} else {
		trial.out.print(t.out)
	}
	if err == nil && failed {
		err = fmt.Errorf("%s: the function failed at %s: %s (hint: a node answers 503, or goes on without it where on_error is open)", c.File, trial.out.Stage, trial.out.Reason)
	}
	return err
}

// options reads the flags by the configuration's own table.
func (c *wasmTestCommand) options() (o functionOptions, err error) {
	for _, f := range []struct {
		name, text string
		into       *string
	}{{"--config", c.Config, &o.Config}, {"--vm-config", c.VMConfig, &o.VMConfig}} {
		*f.into = f.text
		if path, ok := strings.CutPrefix(f.text, "@"); ok {
			text, err := readSecret(path)
			if err != nil {
				return o, fmt.Errorf("%s: %w", f.name, err)
			}
			*f.into = string(text)
		}
	}
	set, kind := uploadSetting("mode")
	if err := set(c.Mode, &o); err != nil {
		return o, &usageError{fmt.Sprintf("--mode: %v; write %s", err, kind)}
	}
	for _, text := range c.Limit {
		name, value, _ := strings.Cut(text, "=")
		set, kind := uploadSetting("limits." + name)
		if set == nil {
			return o, &usageError{fmt.Sprintf("--limit: no limit is named %s (hint: cpu=10ms; the limits are those of the configuration)", show(name))}
		}
		if err := set(value, &o); err != nil {
			return o, &usageError{fmt.Sprintf("--limit %s: %v; write %s", name, err, kind)}
		}
	}
	return o, nil
}

// trial is one run of a module on an exchange.
type trial struct {
	request, response *abi.Message
	sent, answer      []byte // their content
	lines             *logLines
	out               trialBody
}

// whole loads the module, runs it, and fills in out. failed tells that the
// function did; an error is of the module's, which could not be loaded.
func (t *trial) whole(spec wasm.Spec, origin bool) (failed bool, err error) {
	host, err := wasm.NewHost(wasm.Options{Log: slog.New(t.lines)})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	// Without keys, maps and a database: there is no configuration.
	own, err := extras.New(extras.Options{}).Open(extras.Config{})
	if err != nil {
		return false, err
	}
	defer own.Close()
	spec.Foreign = own.Grant(spec.Name, nil, nil).Functions()
	began := time.Now()
	f, err := host.Load(context.Background(), spec)
	if err != nil {
		return false, errors.New(strings.TrimPrefix(err.Error(), "wasm: function test: "))
	}
	defer f.Close()
	t.out.Load, t.out.ABI, t.out.Mode = time.Since(began).Seconds(), f.ABI(), "shared"
	if f.Mode() == wasm.ModeReset {
		t.out.Mode = "reset"
	}
	before := f.Stats()
	chain := wasm.NewChain([]*wasm.Function{f})
	defer chain.Close()
	x := t.exchange(origin)
	run := chain.Begin(context.Background(), x)
	result, err := t.run(run, x)
	run.End()
	t.out.Result = [...]string{wasm.Continue: "continue", wasm.Answered: "answered", wasm.Failed: "failed"}[result.Verdict]
	t.out.Reason = result.Reason
	t.count(before, f.Stats())
	t.out.Log = append(t.out.Log, t.lines.all()...)
	return result.Verdict == wasm.Failed, err
}

// exchange is what the function sees first.
func (t *trial) exchange(origin bool) *abi.Exchange {
	x := &abi.Exchange{
		Request: *t.request,
		Facts: abi.Facts{ID: "test", Begun: time.Now(), Site: "test", Protocol: "HTTP/1.1", Source: "192.0.2.1:40000", Destination: "192.0.2.2:443",
			Client: "192.0.2.1"},
		Cache: abi.Cache{TTL: -1},
	}
	if origin {
		x.Stage = abi.OriginRequest
	}
	x.Request.Header = copied(t.request.Header)
	if len(t.sent) > 0 {
		x.Request.Source = bytes.NewReader(t.sent)
	}
	return x
}

// run makes one way through the chain, as the node's walk does.
func (t *trial) run(run *wasm.Run, x *abi.Exchange) (result wasm.Result, err error) {
	t.out.Stage = t.stage(x)
	result = run.Request()
	if result.Verdict == wasm.Failed {
		return result, nil
	}
	answered := result
	if result.Verdict == wasm.Continue {
		content, stopped, err := drain(x.Request.Source, func(r io.Reader) io.Reader { return run.RequestBody(io.NopCloser(r)) })
		if err != nil || stopped.Verdict == wasm.Failed {
			return stopped, err
		}
		if answered = stopped; stopped.Verdict == wasm.Continue {
			t.out.Sent = changed(line(t.request), line(&x.Request), t.request.Header, x.Request.Header, t.sent, content)
			x.Response = abi.Message{Status: t.response.Status, Header: copied(t.response.Header), Source: bytes.NewReader(t.answer)}
			x.Cache.Status = "miss"
		}
	}
	result = run.Response()
	t.out.Stage = t.stage(x)
	if result.Verdict == wasm.Failed {
		return result, nil
	}
	content, stopped, err := drain(x.Response.Source, run.ResponseBody)
	if err != nil || stopped.Verdict == wasm.Failed {
		return stopped, err
	}
	if answered.Verdict == wasm.Answered || result.Verdict == wasm.Answered {
		t.out.Got = changed("", line(&x.Response), nil, x.Response.Header, nil, content)
		result.Verdict = wasm.Answered
	} else {
		t.out.Got = changed(line(t.response), line(&x.Response), t.response.Header, x.Response.Header, t.answer, content)
	}
	t.decided(&x.Cache)
	return result, nil
}

func (t *trial) stage(x *abi.Exchange) string { return wasm.StageNames()[x.Stage] }

// drain reads content as the function passes it on. stopped is what the
// function did instead.
func drain(source io.Reader, through func(io.Reader) io.Reader) (content []byte, stopped wasm.Result, err error) {
	if source == nil {
		return nil, stopped, nil
	}
	content, err = readBounded(through(source), 16*maxMessage)
	var body *wasm.BodyError
	if errors.As(err, &body) {
		return nil, body.Result, nil
	}
	return content, stopped, err
}

// decided notes what the function decided of caching.
func (t *trial) decided(c *abi.Cache) {
	if c.Key == "" && c.TTL < 0 && !c.TagsSet {
		return
	}
	t.out.Cache = &cacheBody{Key: c.Key, Tags: c.Tags}
	if c.TTL >= 0 {
		seconds := c.TTL.Seconds()
		t.out.Cache.TTL = &seconds
	}
}

// count notes what the exchange cost: what was counted since the load.
func (t *trial) count(before, after wasm.Stats) {
	for i, stage := range after.Stages {
		was := before.Stages[i]
		one := trialStage{Calls: stage.Calls - was.Calls, Seconds: (stage.Duration - was.Duration).Seconds(), Fuel: stage.Fuel - was.Fuel}
		for kind, n := range stage.Traps {
			if n -= was.Traps[kind]; n > 0 {
				if one.Traps == nil {
					one.Traps = make(map[string]int64)
				}
				one.Traps[kind] = n
			}
		}
		if one.Calls > 0 || one.Traps != nil {
			t.out.Stages[wasm.StageNames()[i]] = one
		}
	}
	t.out.Memory, t.out.Metrics = after.Memory, map[string]uint64{}
	maps.Copy(t.out.Metrics, after.Metrics)
}

// copied is a header that a function may change.
func copied(h http.Header) http.Header {
	if h == nil {
		return http.Header{}
	}
	return h.Clone()
}

// line is a message's start line; of requests as a URL.
func line(m *abi.Message) string {
	if m.Status != 0 {
		return strings.TrimSpace(strconv.Itoa(m.Status) + " " + http.StatusText(m.Status))
	}
	return m.Method + " " + m.Scheme + "://" + m.Authority + m.Target
}

// changed compares a message with what it was. Content-Length is left out: the
// node frames what it sends by itself.
func changed(startWas, start string, was, is http.Header, contentWas, content []byte) *changeBody {
	c := &changeBody{Start: start, Removed: fieldLines(was, is), Added: fieldLines(is, was), Size: len(content), Replaced: !bytes.Equal(contentWas, content)}
	if startWas != start {
		c.StartWas = startWas
	}
	if c.Replaced {
		c.Content = string(content[:min(len(content), shownContent)])
		c.Truncated = len(content) > shownContent
	}
	return c
}

// fieldLines are the lines of h that other has not alike, by name.
func fieldLines(h, other http.Header) []string {
	out := []string{}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if name == "Content-Length" || slices.Equal(h[name], other[name]) {
			continue
		}
		for _, v := range h[name] {
			out = append(out, name+": "+v)
		}
	}
	return out
}

// print writes the result for people. What is the function's own does not
// move the cursor.
func (b *trialBody) print(w io.Writer) {
	fmt.Fprintf(w, "loaded     %s in mode %s, in %s\n", b.ABI, b.Mode, time.Duration(b.Load*float64(time.Second)).Round(10*time.Microsecond))
	b.Sent.print(w, "request", "unchanged")
	if b.Result == "answered" {
		fmt.Fprintln(w, "answered   the function answered instead of the node")
	}
	b.Got.print(w, "response", "unchanged")
	if c := b.Cache; c != nil {
		text := ""
		if c.Key != "" {
			text += " key " + show(c.Key)
		}
		if c.TTL != nil {
			text += fmt.Sprintf(" ttl %gs", *c.TTL)
		}
		if c.Tags != nil {
			text += " tags " + show(strings.Join(c.Tags, ","))
		}
		fmt.Fprintln(w, "cache     "+text)
	}
	for _, l := range b.Log {
		fmt.Fprintf(w, "log        %s: %s\n", l.Level, clipped(l.Text))
	}
	for _, name := range wasm.StageNames() {
		s, ok := b.Stages[name]
		if !ok {
			continue
		}
		fmt.Fprintf(w, "cost       %s: %s, %s, %d fuel", name, plural(int(s.Calls), "call"), time.Duration(s.Seconds*float64(time.Second)).Round(100*time.Nanosecond), s.Fuel)
		for _, kind := range slices.Sorted(maps.Keys(s.Traps)) {
			fmt.Fprintf(w, ", %s by %s", plural(int(s.Traps[kind]), "trap"), kind)
		}
		fmt.Fprintln(w)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Metrics)) {
		fmt.Fprintf(w, "metric     %s = %d\n", clipped(name), b.Metrics[name])
	}
	fmt.Fprintf(w, "memory     %s\n", showBytes(b.Memory))
}

func (c *changeBody) print(w io.Writer, what, same string) {
	if c == nil {
		return
	}
	if c.StartWas == "" && len(c.Removed)+len(c.Added) == 0 && !c.Replaced {
		fmt.Fprintf(w, "%-10s %s: %s\n", what, clipped(c.Start), same)
		return
	}
	fmt.Fprintf(w, "%-10s %s\n", what, clipped(c.Start))
	if c.StartWas != "" {
		fmt.Fprintf(w, "  was      %s\n", clipped(c.StartWas))
	}
	for _, l := range c.Removed {
		fmt.Fprintf(w, "  -        %s\n", clipped(l))
	}
	for _, l := range c.Added {
		fmt.Fprintf(w, "  +        %s\n", clipped(l))
	}
	if c.Replaced {
		fmt.Fprintf(w, "  content  %d bytes: %s\n", c.Size, cmp.Or(show(c.Content), "none"))
	}
}

// logLines keeps what is logged, up to a bound. It is a slog.Handler of every
// level.
type logLines struct {
	mu   sync.Mutex
	list []lineBody // guarded by mu
}

// maxLines bounds what is kept: a guest may log without end while it starts.
const maxLines = 1000

// Enabled implements slog.Handler.
func (l *logLines) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	one := lineBody{Level: strings.ToLower(r.Level.String()), Text: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "text":
			one.Text = a.Value.String()
		case "kind", "error":
			one.Text += " " + a.Key + "=" + a.Value.String()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < maxLines {
		l.list = append(l.list, one)
	}
	return nil
}

// WithAttrs implements slog.Handler; the host adds none.
func (l *logLines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler; the host makes none.
func (l *logLines) WithGroup(string) slog.Handler { return l }

func (l *logLines) all() []lineBody {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}
