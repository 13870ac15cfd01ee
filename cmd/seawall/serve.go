package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// memoryMargin is what the process may take beside the store's budget before
// the collector works harder.
const memoryMargin = 64 * mib

// serveCommand is `seawall serve`. A nil flag was not given. Values are read by
// the configuration's own table, so that a flag and a key take the same.
type serveCommand struct {
	Config    string        `placeholder:"FILE" help:"Read this configuration; flags override it."`
	Origin    []string      `placeholder:"URL" sep:"none" help:"Answer every host from this origin, as http://127.0.0.1:8000. Several are one pool."`
	HTTP      *string       `name:"http" placeholder:"ADDR" help:"Listen for clear HTTP/1.1 and HTTP/2 by prior knowledge (:8080)."`
	HTTPS     *string       `name:"https" placeholder:"ADDR" help:"Listen for HTTP/1.1 and 2 over TLS on TCP, and for HTTP/3 on the same UDP port (:8443); off for none."`
	Cert      *string       `placeholder:"FILE" help:"The certificate, as PEM, its issuers behind it. Without it, a self-signed one."`
	Key       *string       `placeholder:"FILE" help:"Its key, as PEM."`
	Admin     *string       `placeholder:"ADDR" help:"Listen for health, metrics and the admin API (127.0.0.1:9090); off for none."`
	Memory    *string       `placeholder:"SIZE" help:"What responses may take in memory (256MiB)."`
	Disk      *string       `placeholder:"DIR" help:"Keep responses on disk too. (In a later version.)"`
	DiskSize  *string       `placeholder:"SIZE" help:"What they may take there. (In a later version.)"`
	Data      *string       `placeholder:"DIR" help:"Keep the node's state here; \"\" keeps none ($$XDG_STATE_HOME/seawall, else ~/.local/state/seawall)."`
	Drain     time.Duration `default:"30s" help:"How long exchanges may take to finish when the node ends."`
	SetCookie *string       `placeholder:"POLICY" help:"Which responses with Set-Cookie may be stored: shared, pass, strip or store (shared)."`
	LogLevel  *string       `placeholder:"LEVEL" help:"debug, info, warn or error (info)."`
	LogFormat *string       `placeholder:"FORMAT" help:"text or json (text)."`
	AccessLog *string       `placeholder:"PATH" help:"Where to write a line for each request: a path, stdout, stderr or off (stdout)."`
}

// Help is shown under the command's flags.
func (*serveCommand) Help() string {
	return "SIGHUP reads the configuration and the certificates again; bad ones change nothing. SIGTERM and SIGINT drain the node and end it; " +
		"a second one ends it at once.\n\nExample:\n  seawall serve --origin http://127.0.0.1:8000 --http :8080 --memory 1GiB"
}

// Run serves until a signal ends it.
func (c *serveCommand) Run(t *terminal) error {
	if err := c.refused(); err != nil {
		return err
	}
	s, err := c.settings()
	if err != nil {
		return err
	}
	path, err := c.dataPath()
	if err != nil {
		return err
	}
	// Before anything that takes time: a signal while starting must not be lost.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // who reads the logs may go; the node stays
	d, err := openData(path)
	if err != nil {
		return err
	}
	defer d.Close()
	n, err := newNode(s, d, t)
	if err != nil {
		return err
	}
	ends := n.serve()
	n.announce(d, limitMemory(s.Cache.Memory))
	defer runtime.KeepAlive(floor())
	return n.run(signals, ends, c.Drain, c.settings)
}

// refused tells of the first flag that has no meaning yet.
func (c *serveCommand) refused() error {
	for _, f := range []struct {
		name  string
		value *string
		why   string
	}{
		{"--disk", c.Disk, "the disk tier comes in a later version; leave it out, and --memory is the cache"},
		{"--disk-size", c.DiskSize, "the disk tier comes in a later version; leave it out, and --memory is the cache"},
	} {
		if f.value != nil {
			return &usageError{fmt.Sprintf("%s is not in this version: %s", f.name, f.why)}
		}
	}
	if (c.Cert == nil) != (c.Key == nil) {
		return &usageError{"--cert and --key go together: one is of no use without the other (hint: give both, or neither for a self-signed certificate)"}
	}
	if c.Drain < 0 {
		return &usageError{"--drain is negative (hint: write a duration, as 30s)"}
	}
	if c.Config == "" && len(c.Origin) == 0 {
		return &usageError{"nothing to serve (hint: --origin http://127.0.0.1:8000, or --config FILE)"}
	}
	return nil
}

// settings reads the configuration and puts the flags over it.
func (c *serveCommand) settings() (*settings, error) {
	s := defaultSettings()
	if c.Config != "" {
		var err error
		if s, err = loadSettings(c.Config); err != nil {
			return nil, err
		}
	}
	var bad []string
	flag(&bad, "--http", c.HTTP, "host:port, as :8080", parseAddr, &s.Listen.HTTP)
	flag(&bad, "--https", c.HTTPS, "host:port, or off", parseAddrOrOff, &s.Listen.HTTPS)
	flag(&bad, "--admin", c.Admin, "host:port, or off", parseAddrOrOff, &s.Listen.Admin)
	flag(&bad, "--memory", c.Memory, "a size from 1MiB to 16TiB, as 256MiB", sizes(mib, 16*tib), &s.Cache.Memory)
	flag(&bad, "--log-level", c.LogLevel, "debug, info, warn or error", parseLevel, &s.Log.Level)
	flag(&bad, "--log-format", c.LogFormat, "text or json", words("text", "json"), &s.Log.Format)
	flag(&bad, "--access-log", c.AccessLog, "a path, stdout, stderr or off", parseLogPath, &s.Log.Access)
	if c.Cert != nil {
		s.TLS.Certificates = make([]certificateSettings, 1)
		flag(&bad, "--cert", c.Cert, "the path of a PEM file", parseFile, &s.TLS.Certificates[0].Cert)
		flag(&bad, "--key", c.Key, "the path of a PEM file", parseFile, &s.TLS.Certificates[0].Key)
		if s.Listen.HTTPS == "" {
			bad = append(bad, "--cert is of no use while https is off; leave out --cert and --key, or give --https ADDR")
		}
	}
	switch {
	case len(c.Origin) > 0 && len(s.Sites) > 0:
		bad = append(bad, fmt.Sprintf("--origin and the sites of %s both say what to serve; give one of them", c.Config))
	case len(c.Origin) > 0:
		s.Sites = []siteSettings{loneSite(make([]string, len(c.Origin)))}
		for i, text := range c.Origin {
			flag(&bad, "--origin", &text, "http://host[:port] or https://host[:port]", parseServer, &s.Sites[0].Origins[i])
		}
	case len(s.Sites) == 0:
		return nil, &faults{c.Config, []fault{{text: "no sites; list at least one with its origins, or give --origin"}}}
	}
	if s.Cache.MaxObject > s.Cache.Memory {
		bad = append(bad, fmt.Sprintf("cache.max_object (%s) is more than the memory (%s), so that nothing of that size could be kept; give --memory more, or max_object less",
			showSize(s.Cache.MaxObject), showSize(s.Cache.Memory)))
	}
	for i := range s.Sites {
		flag(&bad, "--set-cookie", c.SetCookie, "shared, pass, strip or store", parseSetCookie, &s.Sites[i].Cache.SetCookie)
	}
	if len(bad) > 0 {
		return nil, &usageError{strings.Join(bad, "; ")}
	}
	return s, nil
}

// flag reads a flag that was given into field, or says why it cannot.
func flag[V any](bad *[]string, name string, text *string, kind string, parse func(string) (V, error), field *V) {
	if text == nil {
		return
	}
	v, err := parse(*text)
	if err != nil {
		*bad = append(*bad, fmt.Sprintf("%s: %v; write %s", name, err, kind))
		return
	}
	*field = v
}

func (c *serveCommand) dataPath() (string, error) {
	if c.Data != nil {
		return *c.Data, nil
	}
	return defaultData()
}

// heapFloor counts as live to the collector, which so begins no earlier than
// when about as much has been allocated since it last ran: a node's own live
// heap is a few MiB beside what it stores, and small hits would have it run every
// thousand of them. Nothing is ever written there, so it takes no memory.
const heapFloor = 8 * mib

// floor returns what is to be kept for as long as the node serves; nothing where
// the operator told the collector what to do.
func floor() []byte {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return nil
	}
	return make([]byte, heapFloor)
}

// limitMemory tells the collector what the process should stay within, unless
// the operator did, and returns the limit; 0 is none of ours.
func limitMemory(budget int64) int64 {
	if os.Getenv("GOMEMLIMIT") != "" || budget > math.MaxInt64-memoryMargin-heapFloor {
		return 0
	}
	debug.SetMemoryLimit(budget + memoryMargin + heapFloor)
	return budget + memoryMargin
}

// announce says what the node is and where.
func (n *node) announce(d *data, limit int64) {
	args := []any{"memory", showSize(n.settings.Cache.Memory)}
	if limit > 0 {
		args = append(args, "process_limit", showSize(limit))
	} else {
		args = append(args, "process_limit", "as GOMEMLIMIT says")
	}
	if d.path == "" {
		args = append(args, "data", "kept in memory only: nothing outlives this run")
	} else {
		args = append(args, "data", d.path)
	}
	n.log.Info("seawall "+readBuild().Version, args...)
	for _, s := range n.settings.Sites {
		n.log.Info("site "+s.Name, "hosts", cmp.Or(strings.Join(s.Hosts, " "), "all"), "origins", s.originURLs())
	}
	if n.side != nil {
		n.log.Info("admin on " + shownURL("http", n.side.Addrs()[0]))
		if addr, ok := n.side.Addrs()[0].(*net.TCPAddr); ok && !addr.IP.IsLoopback() && len(n.settings.Admin.Tokens) == 0 {
			n.log.Warn("admin answers calls from this machine only, until the configuration has admin.tokens")
		}
	}
	if n.keys != nil {
		n.keys.now.Load().say(n.log, time.Now())
		n.log.Info("listening on "+n.secureURL(), "protocols", "HTTP/1.1 and 2 on TCP, HTTP/3 on UDP")
	}
	n.log.Info("listening on " + n.clearURL())
}

// clearURL is where the node is reached in clear.
func (n *node) clearURL() string { return shownURL("http", n.front.Addrs()[0]) }

// secureURL is where it is reached by TLS, "" if it is not.
func (n *node) secureURL() string {
	if n.keys == nil {
		return ""
	}
	return shownURL("https", n.front.Addrs()[1])
}

// shownURL is a URL that reaches a listener: one on every address is shown by
// this machine's own name.
func shownURL(scheme string, addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// run follows signals until one ends the node, or a listener fails.
func (n *node) run(signals <-chan os.Signal, ends <-chan error, drain time.Duration, read func() (*settings, error)) error {
	for {
		select {
		case err := <-ends:
			n.close()
			return err
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				n.reread(read)
				continue
			}
			n.log.Info("draining", "signal", sig.String(), "for", drain.String())
			ctx, cancel := context.WithTimeout(context.Background(), drain)
			defer cancel()
			go cutShort(ctx, cancel, signals)
			n.drain(ctx)
			n.log.Info("ended")
			return nil
		}
	}
}

// cutShort calls cancel at the next signal to end.
func cutShort(ctx context.Context, cancel func(), signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				cancel()
			}
		}
	}
}

// reread reloads the configuration, or says why not.
func (n *node) reread(read func() (*settings, error)) {
	s, err := read()
	if err == nil {
		err = n.reload(s)
	}
	var list *faults
	switch {
	case err == nil:
		n.log.Info("reloaded", "sites", len(s.Sites))
	case errors.As(err, &list):
		for _, line := range list.lines() {
			n.log.Error("not reloaded: the configuration in use stays", "error", line)
		}
	default:
		n.log.Error("not reloaded: the configuration in use stays", "error", err)
	}
}
