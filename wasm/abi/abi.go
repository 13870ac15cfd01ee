// Package abi is what the guest ABIs and their host share: an exchange as
// functions see it, and the services they may ask for.
//
// Package wasm owns machines (instantiated, metered modules), their locks and
// budgets; wasm/proxywasm and wasm/httpwasm translate between it and a guest.
// Neither knows anything of caching.
package abi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Exchange is one request and its response as functions see and change them.
// Its owner fills it before a phase and reads it after. One goroutine at a
// time touches it.
type Exchange struct {
	Request, Response Message
	Facts             Facts
	Cache             Cache
	// Stage is the point of the walk that runs now.
	Stage Stage
	// Answered is set when a function answers instead of the node: Response
	// then has status, header and Body of that answer.
	Answered bool
	// Function is the name of the function that runs now.
	Function string
	// Early are fields that functions set for a response before there is one.
	// The host adds those that the response lacks; to an answer of a
	// function's own they belong from the start.
	Early http.Header
	// EarlyStatus and EarlyBody are a status and content that a function wrote
	// before next: the status replaces the response's, the content goes ahead
	// of the response's.
	EarlyStatus int
	EarlyBody   []byte
	// Failed is set when the response is the node's own error.
	Failed bool
	// Wake is set by the host while a stream is paused; an ABI calls it when
	// the guest resumes, answers or closes the stream outside the stream's
	// own callback.
	Wake func()
}

// Stage is a point of a request's walk.
type Stage uint8

// The stages, in the order of the walk.
const (
	ViewerRequest Stage = iota
	OriginRequest
	OriginResponse
	ViewerResponse
)

// Message is a request or a response.
//
// Header and Trailer have canonical names. Their maps belong to the exchange,
// but the slices in them may be shared with stored responses: a change puts a
// new slice in its place, never an element.
type Message struct {
	// Of a request: Target is path and query, byte for byte.
	Method, Scheme, Authority, Target string
	// Status is the response's.
	Status int
	// Header is the header; nil is empty.
	Header http.Header
	// Trailer is set once it has come; nil without one.
	Trailer http.Header
	// Body is what has come of the content and was not passed on yet; a body
	// callback may replace it. After a local answer it is the whole content.
	Body []byte
	// Ended is true when nothing comes after Body.
	Ended bool
	// Source is where the content comes from; nil when there is none. The host
	// reads it for guests with body callbacks; http-wasm guests pull from it.
	Source io.Reader
	// Replaced is set when a guest wrote content of its own.
	Replaced bool
	// Changed is set when method, target, authority, status, header or
	// trailer may differ from what the owner gave.
	Changed bool
}

// Facts are what guests may know of the connection and the node.
type Facts struct {
	// ID is the request's; while it is empty, Number is, unless 0, in sixteen
	// hexadecimal digits. Begun is when the request was read.
	ID     string
	Number uint64
	Begun  time.Time
	// Site is the name of the site; Protocol "HTTP/1.1", "HTTP/2" or "HTTP/3".
	Site, Protocol string
	// Source and Destination are "address:port". While the latter is empty,
	// Context, unless nil, is asked for it: net/http's has the address of the
	// server under http.LocalAddrContextKey.
	Source, Destination string
	Context             context.Context
	// Client is the client's address, by trusted proxies' word if need be.
	Client string
	// TLSVersion is as in crypto/tls, 0 in clear text; ServerName the SNI.
	TLSVersion uint16
	ServerName string
	// MTLS is set when the client has a verified certificate.
	MTLS bool
	// ALPN is the protocol that TLS agreed on, Cipher the suite as in crypto/tls.
	ALPN   string
	Cipher uint16
	// Geo is where the client is, as far as known. While it is unknown, Locate,
	// unless nil, gives it for Client when it is asked for.
	Geo    Geo
	Locate func(client string) Geo
	// Settings are names and values of the site's configuration, for reading.
	Settings [][2]string
}

// RequestID spells the request's, "" when there is none.
func (f *Facts) RequestID() string {
	if f.ID == "" && f.Number != 0 {
		return fmt.Sprintf("%016x", f.Number)
	}
	return f.ID
}

// destination is the server's "address:port", "" where it is not known.
func (f *Facts) destination() string {
	if f.Destination == "" && f.Context != nil {
		if at, ok := f.Context.Value(http.LocalAddrContextKey).(net.Addr); ok {
			return at.String()
		}
	}
	return f.Destination
}

// Geo is a place; fields not known are empty.
type Geo struct {
	Country, Region, City string
	ASN                   uint32
}

// Cache is what functions may know and decide of caching. The owner reads
// what a phase has set.
type Cache struct {
	// Key is the part added to scheme, host, path and query; KeySet tells that
	// the function that runs has set it.
	Key    string
	KeySet bool
	// TTL is the lifetime a function set on the origin side; negative: none.
	TTL time.Duration
	// Tags are the purge tags that a function set; TagsSet tells none from
	// no change.
	Tags    []string
	TagsSet bool
	// Status is "hit", "miss" or "stale", "" before the look-up.
	Status string
}

// Action is what a callback wants to happen next.
type Action uint8

const (
	// Continue passes on what has come.
	Continue Action = iota
	// Pause waits: for more content, or for the guest to resume the stream.
	Pause
	// Stop ends the chain: a local answer stands in Response.
	Stop
)

// Wants tells which callbacks a stream needs; the host skips the others, and
// gives an exclusive machine back as soon as none is left.
type Wants struct {
	RequestHeaders, RequestBody, RequestTrailers    bool
	ResponseHeaders, ResponseBody, ResponseTrailers bool
	// BufferRequest and BufferResponse ask for the whole content before the
	// header callback of that side, within the body limit.
	BufferRequest, BufferResponse bool
	// Silent tells that End runs no callback of the guest's.
	Silent bool
}

// ABI is one guest interface.
type ABI interface {
	// Name is "proxy-wasm" or "http-wasm".
	Name() string
	// Detect reports whether a module with these exports speaks it.
	Detect(exports map[string]bool) bool
	// Check names each import (of module.name, with its signature) that the
	// ABI does not offer, in a sentence each.
	Check(imports []Import) []string
	// Link makes the host modules that such a module may import, by name. It
	// is called once for each loaded module; the modules are closed with it.
	Link(ctx context.Context, r wazero.Runtime, imports []Import) (map[string]api.Module, error)
	// NewGuest prepares an instantiated machine: resolves its exports, starts
	// and configures it, within the machine's budget.
	NewGuest(m Machine, s Services) (Guest, error)
}

// Import is a function that a module imports.
type Import struct {
	Module, Name    string
	Params, Results []api.ValueType
}

// Guest is the ABI's side of one machine. All calls are made with the
// machine's lock held and a budget set.
type Guest interface {
	// Begin makes the context of one exchange.
	Begin(x *Exchange) (Stream, error)
	// Tick runs the guest's periodic callback.
	Tick() error
	// TickPeriod is how often it wants one; 0 never.
	TickPeriod() time.Duration
}

// Stream is one exchange in a guest. All calls are made with the machine's
// lock held and a budget set. An error is a *Trap or wraps one: the machine
// must not be used again.
type Stream interface {
	Wants() Wants
	RequestHeaders() (Action, error)
	RequestBody() (Action, error)
	RequestTrailers() (Action, error)
	ResponseHeaders() (Action, error)
	ResponseBody() (Action, error)
	ResponseTrailers() (Action, error)
	// Resumed reports, and forgets, that the guest resumed the request or
	// response side outside the stream's own callbacks.
	Resumed(response bool) bool
	// End runs the final callbacks. The exchange is not touched after it.
	End() error
}

// Machine is an instantiated module. An ABI calls its exports only through
// Call, with the lock held.
type Machine interface {
	Module() api.Module
	// Call calls a guest function as api.Function.CallWithStack does, within
	// the budget of the phase. The error is a *Trap.
	Call(f api.Function, stack []uint64) error
	// Spend charges a host call and n bytes that it copies to the budget. It
	// fails with a *Trap, which the host function must panic with.
	Spend(n int) error
}

// Context is what host functions get as their context.Context: they assert
// it, and find their guest in it. It is no context.WithValue: one machine has
// one.
type Context struct {
	context.Context
	// Machine is the one that calls, Services those of its function.
	Machine  Machine
	Services Services
	// Guest is what NewGuest returned; nil while it runs the start functions.
	// An ABI may set it earlier through SetGuest.
	Guest Guest
}

// Holder is implemented by machines: an ABI sets its guest before it runs the
// guest's start functions, so that host calls made by them find it.
type Holder interface{ SetGuest(Guest) }

// Level is a log level.
type Level int8

// The levels of guests' log lines.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
	Critical
)

// MetricKind is what a guest's metric is.
type MetricKind uint8

// The kinds of metrics.
const (
	Counter MetricKind = iota
	Gauge
	Histogram
)

// Errors of services. An ABI translates them into its own status codes.
var (
	ErrNotFound    = errors.New("not found")
	ErrArgument    = errors.New("bad argument")
	ErrCASMismatch = errors.New("compare-and-swap mismatch")
	ErrLimit       = errors.New("over a limit")
	// ErrBody says that content is over the body limit.
	ErrBody = errors.New("content over the limit")
)

// Services are what the node does for the guests of one function.
type Services interface {
	// Name is the function's; Config and VMConfig are given to it at start.
	Name() string
	Config() []byte
	VMConfig() []byte
	// Log writes a line of the guest's, within its limit.
	Log(level Level, text string)
	LogLevel() Level
	// HTTPCall sends a request to a named upstream. deliver is called once,
	// later, with the machine's lock held and a budget set. ErrArgument when
	// the upstream is unknown, ErrLimit when too many are under way.
	HTTPCall(m Machine, c *HTTPCall, deliver func(*HTTPReply) error) error
	// Foreign calls a function of the node by name.
	Foreign(x *Exchange, name string, args []byte) ([]byte, error)
	// Shared data of the function; cas 0 sets unconditionally.
	SharedGet(key string) (value []byte, cas uint32, ok bool)
	SharedSet(key string, value []byte, cas uint32) error
	// Metrics of the function, by id.
	MetricDefine(kind MetricKind, name string) (uint32, error)
	MetricAdd(id uint32, delta int64) error
	MetricSet(id uint32, value uint64) error
	MetricGet(id uint32) (uint64, error)
	// BodyLimit is how many bytes of content may be buffered; FieldLimit how
	// many bytes one field or body change may have.
	BodyLimit() int64
	FieldLimit() int
}

// HTTPCall is a request of a guest's own.
type HTTPCall struct {
	Upstream                          string
	Method, Authority, Target, Scheme string
	Header, Trailer                   http.Header
	Body                              []byte
	Timeout                           time.Duration
}

// HTTPReply is the answer; Status is 0 when there was none.
type HTTPReply struct {
	Status          int
	Header, Trailer http.Header
	Body            []byte
}

// Trap is why a machine was stopped. Clients never see it.
type Trap struct {
	// Kind is one word for metrics: "cpu", "memory", "depth", "exit",
	// "unreachable", "wall", "host-calls", "argument", "body" or "panic".
	Kind string
	Err  error
}

func (t *Trap) Error() string {
	if t.Err == nil {
		return t.Kind
	}
	return t.Kind + ": " + t.Err.Error()
}

func (t *Trap) Unwrap() error { return t.Err }
