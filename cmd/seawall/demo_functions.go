package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm"
)

// The sites of the demo that run a function, by the Host of a request.
const (
	demoMembers = "members.localhost"
	demoShop    = "shop.localhost"
)

// demoFunctions are the two edge functions of the demo. They are built from
// their source while the node serves already: the first time it takes the
// compiler a while.
type demoFunctions struct {
	n      *node
	plain  *settings                // without them
	now    atomic.Pointer[settings] // what a SIGHUP reads
	secret [32]byte                 // that tokens are signed with
}

// begin runs d in the background; end waits for its end, and takes away what
// it built.
func (d *demoFunctions) begin() (end func()) {
	dir, err := os.MkdirTemp("", "seawall-demo-")
	if err != nil {
		d.n.log.Error("demo: no edge functions", "error", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.run(ctx, dir)
	}()
	return func() {
		cancel()
		<-ended
		if err := os.RemoveAll(dir); err != nil {
			d.n.log.Error("demo", "error", err)
		}
	}
}

// run builds the functions, puts them to use and says what to try. Without the
// go command or the source the demo goes on without them.
func (d *demoFunctions) run(ctx context.Context, dir string) {
	out := d.n.t.out
	fmt.Fprintln(out, "\nBuilding two edge functions, jwt and abtest, with the go command; the first time that takes a minute ...")
	began := time.Now()
	err := d.start(ctx, dir)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		fmt.Fprintf(out, "The demo goes on without edge functions: %v\n", err)
		return
	}
	token, err := d.token(time.Now())
	if err != nil {
		d.n.log.Error("demo", "error", err)
		return
	}
	fmt.Fprintf(out, "The edge functions run, after %s.\n", time.Since(began).Round(100*time.Millisecond))
	d.tour(token)
}

func (d *demoFunctions) start(ctx context.Context, dir string) error {
	rand.Read(d.secret[:])
	s := *d.plain
	s.Keys = []namedKeySettings{{Name: "demo", Secret: hex.EncodeToString(d.secret[:]), Encoding: "hex"}}
	for name, o := range map[string]functionOptions{
		"jwt":    {Config: "key: demo\nissuer: demo\nheader: X-User sub\n", Keys: []string{"demo"}},
		"abtest": {Config: "variant: a 50\nvariant: b 50 /beta\n"},
	} {
		file := filepath.Join(dir, name+".wasm")
		if err := buildSample(ctx, name, file); err != nil {
			return err
		}
		o.Limits = wasm.Limits{CPU: 20 * time.Millisecond} // also where others want the processor
		s.Functions = append(s.Functions, functionSettings{Name: name, File: file, functionOptions: o})
	}
	site := func(host, function string) siteSettings {
		one := d.plain.Sites[0]
		one.Name, one.Hosts, one.Functions = host, []string{host}, attachSettings{Viewer: []string{function}}
		return one
	}
	s.Sites = append([]siteSettings{site(demoMembers, "jwt"), site(demoShop, "abtest")}, d.plain.Sites...)
	if err := d.n.reload(&s); err != nil {
		return err
	}
	d.now.Store(&s)
	return nil
}

// buildSample builds a function of wasm/examples, of the module that the
// working folder is in. Nothing is fetched, and git, which would run what that
// folder's settings say, is not asked.
func buildSample(ctx context.Context, name, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "seawall/wasm/examples/"+name)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOPROXY=off", "GOTOOLCHAIN=local")
	cmd.WaitDelay = time.Second // its children may hold its output
	said, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("there is no go command to build them with")
	case err != nil && strings.Contains(string(said), "not in std"), err != nil && strings.Contains(string(said), "go.mod file not found"):
		return errors.New("their source is not here; run the demo in Seawall's source folder")
	case err != nil:
		return fmt.Errorf("%s cannot be built: %w: %.300s", name, err, oneLine(string(said)))
	}
	return nil
}

// token is a member's, good for a day.
func (d *demoFunctions) token(now time.Time) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iss": "demo", "sub": "ada", "exp": now.Add(24 * time.Hour).Unix()}).SignedString(d.secret[:])
}

// tour prints what to try with the functions.
func (d *demoFunctions) tour(token string) {
	fmt.Fprintf(d.n.t.out, `
  members alone     curl -i -H 'Host: %[2]s' %[1]s/members    (401: no token)
  with a token      curl -i -H 'Host: %[2]s' -H 'Authorization: Bearer %[4]s' %[1]s/members
                    (twice: a miss, then a hit; all members share one cached page)
  A/B: one or other curl -i -H 'Host: %[3]s' %[1]s/offer      (Set-Cookie keeps a visitor in a variant)
  variant A         curl -i -H 'Host: %[3]s' -H 'Cookie: ab=a' %[1]s/offer
  variant B         curl -i -H 'Host: %[3]s' -H 'Cookie: ab=b' %[1]s/offer   (cached apart)
`, d.n.clearURL(), demoMembers, demoShop, token)
	if d.n.side != nil {
		fmt.Fprintf(d.n.t.out, "  their figures     curl %s/v1/functions\n", shownURL("http", d.n.side.Addrs()[0]))
	}
}
