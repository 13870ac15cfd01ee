package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"seawall/purge"
	"seawall/wasm"
)

// Functions are the node's edge functions. All of it or none is given.
type Functions struct {
	// List is every function that there is or should be, by name.
	List func() []Function
	// Put makes an uploaded module the function of that name, at once and for
	// good; created tells that none was uploaded before. Errors may be
	// *FunctionError; then everything is as it was.
	Put func(ctx context.Context, u FunctionUpload) (f Function, created bool, err error)
	// Remove takes an uploaded module away. Errors may be *FunctionError.
	Remove func(ctx context.Context, name string) error
	// Roll changes which requests the uploaded candidate of a function gets,
	// Promote makes it the function itself, and Rollback takes it away; each at
	// once and for good. Errors may be *FunctionError; then everything is as it
	// was.
	Roll              func(ctx context.Context, name string, r Rollout) (Function, error)
	Promote, Rollback func(ctx context.Context, name string) (Function, error)
	// Figures are counters by name, of all modules that had it.
	Figures func() map[string]wasm.Stats
	// MaxModule is the largest module, in bytes.
	MaxModule int64
}

// Function is one function as it stands.
type Function struct {
	Name string
	// Why says why the function cannot run, so that its sites answer 503; ""
	// when it can. What depends on its module is then zero.
	Why string
	// Uploaded tells a module of the API's from one of the configuration's.
	Uploaded bool
	// File is the module's path, if it is the configuration's.
	File string
	// At is when it was uploaded.
	At                         time.Time
	SHA256, ABI, Mode, OnError string
	Size                       int
	// Upstreams, Keys and Maps are the names of those that it was given.
	Upstreams, Keys, Maps []string
	// Sites are the names of those that run it.
	Sites []string
	// Stats are of this module, since it was loaded.
	Stats wasm.Stats
	// Percent of the requests are this version's.
	Percent float64
	// Candidate is another version of it, which has none of its own; nil is
	// none.
	Candidate *Function
	// By is what chooses a candidate's requests: "address" or "cookie:NAME".
	By string
	// Shadow tells a candidate that runs on copies of them, of which
	// ShadowStats tell.
	Shadow      bool
	ShadowStats wasm.ShadowStats
}

// Rollout changes which requests a candidate gets; what is nil stays.
type Rollout struct {
	Percent *float64
	By      *string
	Shadow  *bool
}

// FunctionUpload is a module to be run from now on.
type FunctionUpload struct {
	Name string
	// Module is the receiver's to keep.
	Module []byte
	// Settings are those of the call's query, by name, with every value.
	Settings map[string][]string
}

// FunctionError says why functions were left as they are.
type FunctionError struct {
	Status int
	// Detail is a sentence; Fields are what was wrong with the call, if it
	// was that.
	Detail string
	Fields []*purge.FieldError
}

func (e *FunctionError) Error() string {
	text := e.Detail
	for _, f := range e.Fields {
		text += " " + f.Error()
	}
	return text
}

// The bounds of uploads.
const (
	maxUploads  = 4               // whose content is read or judged at once; others wait
	uploadWait  = 5 * time.Minute // for all of the content, as each of the few places may be waited for
	maxSettings = 64
)

// The shapes of the answers.
type (
	functionBody struct {
		Name       string     `json:"name"`
		State      string     `json:"state"` // "loaded" or "absent"
		Detail     string     `json:"detail,omitempty"`
		Source     string     `json:"source"` // "api" or "file"
		File       string     `json:"file,omitempty"`
		UploadedAt *time.Time `json:"uploaded_at,omitempty"`
		SHA256     string     `json:"sha256,omitempty"`
		Size       int        `json:"size,omitempty"`
		ABI        string     `json:"abi,omitempty"`
		Mode       string     `json:"mode,omitempty"`
		OnError    string     `json:"on_error,omitempty"`
		Upstreams  []string   `json:"upstreams"`
		Keys       []string   `json:"keys"` // names alone, as of maps
		Maps       []string   `json:"maps"`
		Sites      []string   `json:"sites"`
		Stats      *runBody   `json:"stats,omitempty"`

		Percent     float64       `json:"percent"`
		Candidate   *functionBody `json:"candidate,omitempty"`
		By          string        `json:"by,omitempty"`
		Shadow      bool          `json:"shadow,omitempty"`
		ShadowStats *shadowBody   `json:"shadow_stats,omitempty"`
	}
	shadowBody struct {
		Requests    int64            `json:"requests"`
		Different   int64            `json:"different"`
		Dropped     int64            `json:"dropped"`
		Refused     int64            `json:"calls_refused"`
		Differences map[string]int64 `json:"differences"` // by kind
	}
	runBody struct {
		Stages      map[string]stageBody `json:"stages"` // those that it ran at
		Instances   int                  `json:"instances"`
		Memory      int64                `json:"memory_bytes"`
		Breaker     string               `json:"breaker"`
		BreakerOpen uint64               `json:"breaker_opened"`
		Dropped     int64                `json:"log_lines_dropped"`
		Passed      int64                `json:"responses_passed"`
		Metrics     map[string]uint64    `json:"metrics"` // the guest's own
	}
	stageBody struct {
		Calls   int64            `json:"calls"`
		Seconds float64          `json:"seconds"`
		Fuel    int64            `json:"fuel"`
		Traps   map[string]int64 `json:"traps"`
	}
)

// hasFunctions reports whether the node runs any; if not, the call has been
// answered.
func (c *call) hasFunctions() bool {
	if c.h.Functions.List == nil {
		c.fail(http.StatusNotImplemented, "This node runs no edge functions.")
		return false
	}
	return true
}

// visible are the functions that the caller may see: a token bound to sites
// sees theirs.
func (c *call) visible() []Function {
	all := c.h.Functions.List()
	if c.token == nil || c.token.Sites == nil {
		return all
	}
	mine := all[:0:0]
	for _, f := range all {
		f.Sites = slices.DeleteFunc(slices.Clone(f.Sites), func(s string) bool { return !c.token.may(s) })
		if len(f.Sites) > 0 {
			mine = append(mine, f)
		}
	}
	return mine
}

// listFunctions is GET /v1/functions.
func listFunctions(c *call) {
	if !c.hasFunctions() {
		return
	}
	body := struct {
		Functions []functionBody `json:"functions"`
	}{[]functionBody{}}
	for _, f := range c.visible() {
		body.Functions = append(body.Functions, showFunction(&f))
	}
	c.ok(http.StatusOK, body)
}

// getFunction is GET /v1/functions/{name}.
func getFunction(c *call) {
	if !c.hasFunctions() {
		return
	}
	for _, f := range c.visible() {
		if f.Name == c.args["name"] {
			c.ok(http.StatusOK, showFunction(&f))
			return
		}
	}
	c.fail(http.StatusNotFound, "There is no function of this name.")
}

func showFunction(f *Function) functionBody {
	b := functionBody{
		Name: f.Name, State: "loaded", Detail: f.Why, Source: "file", File: f.File, SHA256: f.SHA256, Size: f.Size, ABI: f.ABI,
		Mode: f.Mode, OnError: f.OnError, Upstreams: append([]string{}, f.Upstreams...), Keys: append([]string{}, f.Keys...), Maps: append([]string{}, f.Maps...),
		Sites: append([]string{}, f.Sites...), Percent: f.Percent, By: f.By, Shadow: f.Shadow,
	}
	if f.Candidate != nil {
		candidate := *f.Candidate
		candidate.Sites = f.Sites
		b.Candidate = new(functionBody)
		*b.Candidate = showFunction(&candidate)
	}
	if f.Uploaded {
		b.Source, b.UploadedAt = "api", &f.At
	}
	if f.Why != "" {
		b.State = "absent"
		return b
	}
	s := &f.Stats
	b.Stats = &runBody{
		Stages: make(map[string]stageBody), Instances: s.Machines, Memory: s.Memory, Breaker: s.Breaker, BreakerOpen: s.BreakerOpen,
		Dropped: s.LogDropped, Passed: s.Passed, Metrics: map[string]uint64{},
	}
	maps.Copy(b.Stats.Metrics, s.Metrics)
	for i, stage := range s.Stages {
		if stage.Calls == 0 && len(stage.Traps) == 0 {
			continue
		}
		traps := map[string]int64{}
		maps.Copy(traps, stage.Traps)
		b.Stats.Stages[wasm.StageNames()[i]] = stageBody{stage.Calls, stage.Duration.Seconds(), stage.Fuel, traps}
	}
	if f.Shadow {
		s := &f.ShadowStats
		b.ShadowStats = &shadowBody{s.Runs, s.Different, s.Dropped, s.Refused, map[string]int64{}}
		maps.Copy(b.ShadowStats.Differences, s.Kinds)
	}
	return b
}

// putFunction is PUT /v1/functions/{name}: its content is the module, its query
// the settings.
func putFunction(c *call) {
	if !c.hasFunctions() || !c.whole() {
		return
	}
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil || len(query) > maxSettings {
		c.invalid(&purge.FieldError{Field: "query", Detail: "is not name=value pairs, percent-encoded"})
		return
	}
	c.what = "settings=" + clip(strings.Join(slices.Sorted(maps.Keys(query)), ",")) // values may be secrets
	// In HTTP/2 and 3 a bound that passes while the place is waited for would
	// end the content for good.
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	select {
	case c.h.uploads <- struct{}{}:
		defer func() { <-c.h.uploads }()
	case <-c.r.Context().Done():
		c.fail(http.StatusServiceUnavailable, "The caller left while others uploaded; nothing was done.")
		return
	}
	module, ok := c.readModule(c.h.Functions.MaxModule)
	if !ok {
		return
	}
	f, created, err := c.h.Functions.Put(c.r.Context(), FunctionUpload{c.args["name"], module, query})
	if err != nil {
		c.functionFailed(err)
		return
	}
	c.what += " sha256=" + f.SHA256
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	c.ok(status, showFunction(&f))
}

// whole sees that the caller is not bound to sites: a function is the whole
// node's. If it is, the call has been refused.
func (c *call) whole() bool {
	if c.token == nil || c.token.Sites == nil {
		return true
	}
	return c.refuse(http.StatusForbidden, "Functions are of the whole node; the token "+c.token.Name+" is bound to sites.")
}

// hurried bounds how long all of the content may take, too.
type hurried struct {
	awaited
	until time.Time
}

func (h *hurried) Read(b []byte) (int, error) {
	if !time.Now().Before(h.until) {
		return 0, os.ErrDeadlineExceeded
	}
	return h.awaited.Read(b)
}

// readModule reads the content. If it cannot, the call has been answered.
func (c *call) readModule(limit int64) ([]byte, bool) {
	if coding := c.r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		c.fail(http.StatusUnsupportedMediaType, "The module is to be sent as it is; nothing was done.",
			&purge.FieldError{Field: "Content-Encoding", Detail: "is not identity"})
		return nil, false
	}
	large := func() ([]byte, bool) {
		c.fail(http.StatusRequestEntityTooLarge, "The module is too large; nothing was done.",
			&purge.FieldError{Field: "body", Detail: fmt.Sprintf("is larger than the %d bytes that a module may have", limit)})
		return nil, false
	}
	if c.r.ContentLength > limit {
		return large()
	}
	var module bytes.Buffer
	module.Grow(int(max(c.r.ContentLength, 0)) + bytes.MinRead)
	_, err := module.ReadFrom(&hurried{awaited{c, http.MaxBytesReader(c.w, c.r.Body, limit)}, time.Now().Add(uploadWait)})
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return large()
	case err != nil && !errors.Is(err, io.EOF):
		c.fail(http.StatusBadRequest, "The module could not be read; nothing was done.", &purge.FieldError{Field: "body", Detail: "ended early or came too slowly"})
		return nil, false
	case module.Len() == 0:
		c.invalid(&purge.FieldError{Field: "body", Detail: "is empty; it is to be the WebAssembly module"})
		return nil, false
	}
	return module.Bytes(), true
}

// deleteFunction is DELETE /v1/functions/{name}.
func deleteFunction(c *call) {
	if !c.hasFunctions() || !c.whole() {
		return
	}
	if err := c.h.Functions.Remove(c.r.Context(), c.args["name"]); err != nil {
		c.functionFailed(err)
		return
	}
	c.status = http.StatusNoContent
	c.w.WriteHeader(c.status)
}

func (c *call) functionFailed(err error) {
	var refused *FunctionError
	if errors.As(err, &refused) {
		if refused.Status == http.StatusServiceUnavailable {
			c.w.Header().Set("Retry-After", "1")
		}
		c.fail(refused.Status, refused.Detail, refused.Fields...)
		return
	}
	c.h.Log.Error("function", "error", err)
	c.fail(http.StatusInternalServerError, "The function was left as it was; the node's log says why.")
}
