package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// nodeFlags are those of every command that talks to a node.
type nodeFlags struct {
	Node string `default:"127.0.0.1:9090" placeholder:"ADDR" help:"The node's admin listener: host:port, or a URL (127.0.0.1:9090). Its token is taken from SEAWALL_TOKEN."`
	JSON bool   `name:"json" help:"Print what the node answers, as JSON."`
}

// client calls a node's admin API.
type client struct {
	base  string // a URL without path
	token string // "" without
	http  *http.Client
}

// maxAnswer is the most that is read of an answer.
const maxAnswer = 16 << 20

// client returns a client for the node that the flags name, to be closed.
func (f *nodeFlags) client() (*client, error) {
	base := f.Node
	if !strings.Contains(base, "://") {
		if _, _, err := net.SplitHostPort(base); err != nil {
			return nil, &usageError{fmt.Sprintf("--node: %s is not an address (hint: write host:port, as 127.0.0.1:9090, or a URL)", show(f.Node))}
		}
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, &usageError{fmt.Sprintf("--node: %s is not an address (hint: write host:port, as 127.0.0.1:9090, or http://host:port)", show(f.Node))}
	}
	token := strings.TrimSpace(os.Getenv("SEAWALL_TOKEN"))
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &usageError{"SEAWALL_TOKEN has characters that no token has"} // which are not shown
	}
	return &client{
		base: u.Scheme + "://" + u.Host, token: token,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: 2 * time.Second,
				ResponseHeaderTimeout: 5 * time.Minute, // a push is answered when it is stored
			},
			// A token is for the node that was named.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// interruptible is a context that ends with Ctrl-C.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// call sends body, if any, as JSON, and decodes the answer into answer, unless
// that is nil. The error is for people.
func (c *client) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return c.send(r, answer)
}

// send is call of a request that is made already.
func (c *client) send(r *http.Request, answer any) error {
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	r.Header.Set("User-Agent", "seawall/"+readBuild().Version)
	resp, err := c.http.Do(r)
	if err != nil {
		return c.unreached(err)
	}
	defer resp.Body.Close()
	text, err := readBounded(resp.Body, maxAnswer)
	if err != nil {
		return fmt.Errorf("%s: the answer broke off: %w (hint: what it was about may have been done)", c.base, err)
	}
	if resp.StatusCode >= 300 {
		return c.problem(resp, text)
	}
	if answer == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s does not answer as a node does: %w (hint: --node ADDR names the admin listener)", c.base, err)
	}
	return nil
}

// strange is the error of an answer without what a node's has: something else
// answers there.
func (c *client) strange() error {
	return fmt.Errorf("%s does not answer as a node does (hint: --node ADDR names the admin listener)", c.base)
}

// unreached is the error of a node that gave no answer.
func (c *client) unreached(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted (hint: what was asked may have been done)")
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without the URL, which may be long
	}
	return fmt.Errorf("no answer from %s: %w (hint: is a node running, with its admin listener there? --node ADDR names another)", c.base, err)
}

// problem is the error that an answer tells of.
func (c *client) problem(resp *http.Response, text []byte) error {
	var p struct {
		Detail string
		Errors []struct{ Field, Detail string }
	}
	if resp.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return fmt.Errorf("%s answers %s, and not as a node does (hint: --node ADDR names the admin listener)", c.base, resp.Status)
	}
	said := strings.TrimSuffix(oneLine(p.Detail), ".")
	for i, e := range p.Errors {
		if i == 10 {
			said += fmt.Sprintf("; and %d more", len(p.Errors)-i)
			break
		}
		said += "; " + oneLine(e.Field+": "+e.Detail)
	}
	hint := ""
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		hint = " (hint: SEAWALL_TOKEN carries the token)"
		if c.token != "" {
			hint = " (hint: the node does not know the token of SEAWALL_TOKEN; admin.tokens names those it knows)"
		}
	case http.StatusForbidden:
		hint = " (hint: another token, in SEAWALL_TOKEN, may be allowed to)"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		hint = " (hint: try again in a moment)"
	}
	return fmt.Errorf("%d: %s%s", resp.StatusCode, strings.TrimSuffix(said, "."), hint)
}

// oneLine keeps what a node said from moving a terminal's cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// printJSON prints v indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// isTerminal reports whether w is a terminal, as far as can be told.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// showBytes writes n for people: 1.4 MiB.
func showBytes(n int64) string {
	v, unit := float64(n), 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}
