package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
)

// TestMain lets the test binary be the program itself: tests of signals, locks
// and exit codes start it again with this variable set.
func TestMain(m *testing.M) {
	if os.Getenv("SEAWALL_TEST_AS_PROGRAM") != "" {
		main()
	}
	if helped() || besides() {
		return
	}
	os.Exit(m.Run())
}

// command runs one command line within the test.
func command(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(args, &terminal{&o, &e})
	return code, o.String(), e.String()
}

func TestCommandLines(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("cache: {memory: x}\nlgo: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, []byte("cache: {max_object: 1GiB}\nsites: [{origins: ['http://a']}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	badPair := filepath.Join(t.TempDir(), "bad-pair.yaml") // it names itself as the PEM files
	absentPair := filepath.Join(t.TempDir(), "absent-pair.yaml")
	for path, pem := range map[string]string{badPair: badPair, absentPair: "/nope.pem"} {
		text := "tls: {certificates: [{cert: '" + pem + "', key: '" + pem + "'}]}\nsites: [{origins: ['http://a']}]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const minimal = "../../deploy/config/minimal.yaml"
	for _, c := range []struct {
		name string
		args []string
		code int
		out  string
		errs string
	}{
		{"help", []string{"--help"}, 0, "serve", ""},
		{"a command's help", []string{"serve", "--help"}, 0, "--origin", ""},
		{"no command", nil, 2, "", "expected one of"},
		{"unknown command", []string{"sevre"}, 2, "", "sevre"},
		{"unknown flag", []string{"serve", "--orgin", "x"}, 2, "", "--orgin"},
		{"nothing to serve", []string{"serve"}, 2, "", "--origin"},
		{"disk", []string{"serve", "--origin", "http://a", "--disk", "/d"}, 2, "", "--disk is not in this version"},
		{"disk size", []string{"serve", "--origin", "http://a", "--disk-size", "1GiB"}, 2, "", "--disk-size is not in this version"},
		{"https", []string{"serve", "--origin", "http://a", "--https", "8443"}, 2, "", `--https: "8443" is not an address; write host:port, or off`},
		{"certificate without key", []string{"serve", "--cert", "c", "--origin", "http://a"}, 2, "", "--cert and --key go together"},
		{"key without certificate", []string{"serve", "--key", "k", "--origin", "http://a"}, 2, "", "--cert and --key go together"},
		{"certificate without https", []string{"serve", "--cert", "c", "--key", "k", "--https", "off", "--origin", "http://a"}, 2, "", "--cert is of no use while https is off"},
		{"no such certificate", []string{"serve", "--cert", "/nope.pem", "--key", "/nope.key", "--origin", "http://a", "--data", "", "--http", "127.0.0.1:0"}, 1, "", "/nope.pem"},
		{"check of a bad certificate", []string{"check", badPair}, 1, "", badPair + ": tls.certificates: " + badPair},
		{"check where certificates are not", []string{"check", absentPair}, 0, "OK, 1 site\n" + absentPair + ": a certificate was not looked at", ""},
		{"memory", []string{"serve", "--origin", "http://a", "--memory", "1PiB"}, 2, "", `--memory: "1PiB" is not a size; write a size`},
		{"origin", []string{"serve", "--origin", "a:80"}, 2, "", `--origin: "a:80" is not the URL of an origin; write http://`},
		{"every flag at fault", []string{"serve", "--origin", "http://a", "--http", "x", "--admin", "y", "--log-level", "z"}, 2, "", `--http: "x" is not an address; write host:port, as :8080; --admin: "y"`},
		{"no address of this machine", []string{"serve", "--origin", "http://a", "--http", "192.0.2.1:0", "--https", "off", "--data", ""}, 1, "", "this machine has no such address: --http ADDR"},
		{"less memory than an object", []string{"serve", "--config", large, "--memory", "10MiB"}, 2, "", "cache.max_object (1GiB) is more than the memory (10MiB)"},
		{"less memory than an object, by default", []string{"serve", "--config", large}, 2, "", "more than the memory (256MiB)"},
		{"set-cookie", []string{"serve", "--origin", "http://a", "--set-cookie", "eat"}, 2, "", "--set-cookie"},
		{"drain", []string{"serve", "--origin", "http://a", "--drain=-1s"}, 2, "", "--drain is negative"},
		{"origin and sites", []string{"serve", "--config", minimal, "--origin", "http://a"}, 2, "", "both say what to serve"},
		{"a bad configuration", []string{"serve", "--config", bad}, 1, "", bad + ":1:17: memory"},
		{"no such configuration", []string{"serve", "--config", "/nope.yaml"}, 1, "", "/nope.yaml: no such file or directory (hint: give the path of a configuration"},
		{"no sites", []string{"serve", "--config", empty}, 1, "", "no sites"},
		{"check tells every error", []string{"check", bad}, 1, "", bad + ":2:1: unknown key \"lgo\"; did you mean log?"},
		{"check without a file", []string{"check"}, 2, "", "<file>"},
		{"check of no file", []string{"check", "/nope.yaml"}, 1, "", "/nope.yaml"},
		{"check of no sites", []string{"check", empty}, 1, "", "no sites"},
		{"check", []string{"check", minimal}, 0, "OK, 1 site", ""},
		{"version", []string{"version"}, 0, "go      go1.", ""},
		{"purge of nothing", []string{"purge"}, 2, "", "nothing to purge"},
		{"purge's help", []string{"purge", "http://a/", "--help"}, 0, "seawall purge --tag", ""},
		{"purge at no address", []string{"purge", "http://a/", "--node", "9090"}, 2, "", "--node"},
		{"purge at a URL with a path", []string{"purge", "--node=http://a/b", "http://a/"}, 2, "", "--node"},
		{"purge where no node is", []string{"purge", "http://a/", "--node", "127.0.0.1:1"}, 1, "", "is a node running"},
		{"push without a file", []string{"push", "http://a/"}, 2, "", "<file>"},
		{"push of no file", []string{"push", "http://a/", "/nope.html"}, 1, "", "/nope.html"},
		{"push of a folder", []string{"push", "http://a/", "/"}, 1, "", "/ is a folder"},
		{"push with no field", []string{"push", "-H", "nonsense", "http://a/", minimal}, 2, "", "-H"},
		{"push with no variant", []string{"push", "--vary-header", "a b: c", "http://a/", minimal}, 2, "", "--vary-header"},
		{"warm of nothing", []string{"warm", "--concurrency", "2"}, 2, "", "nothing to warm"},
		{"warm from no log", []string{"warm", "--from-log", "/nope.log"}, 1, "", "/nope.log"},
		{"warm from what is no log", []string{"warm", "--from-log", minimal}, 1, "", "no GET that was answered"},
		{"warm of too many", []string{"warm", "--from-log", minimal, "--top", "0"}, 2, "", "--top"},
		{"explain", []string{"explain", "u", "--json"}, 2, "", "explain is not in this version"},
		{"top", []string{"top", "--node", "a"}, 2, "", "top is not in this version"},
		{"wasm", []string{"wasm"}, 2, "", "expected one of"},
		{"wasm check of no file", []string{"wasm", "check", "/nope.wasm"}, 1, "", "/nope.wasm"},
		{"wasm check of what is no module", []string{"wasm", "check", minimal}, 1, "refused", "1 reason"},
		{"wasm test without a request", []string{"wasm", "test", minimal}, 2, "", "--request=REQ.http (hint: seawall wasm test --help)"},
		{"wasm test with no mode", []string{"wasm", "test", minimal, "--request", minimal, "--mode", "none"}, 2, "", "--mode"},
		{"wasm test with no limit", []string{"wasm", "test", minimal, "--request", minimal, "--limit", "speed=1"}, 2, "", "--limit"},
		{"wasm bench", []string{"wasm", "bench", "/nowhere/f.wasm"}, 1, "", "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := command(c.args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
				t.Errorf("seawall %q\nexit %d, want %d\nout %q, want %q within\nerr %q, want %q within", c.args, code, c.code, out, c.out, errs, c.errs)
			}
			if (errs == "") != (code == 0) {
				t.Errorf("seawall %q: exit %d with standard error %q", c.args, code, errs)
			}
		})
	}
}

// What keeps a listener from its address is told apart.
func TestWhyAListenerIsNotBound(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "listen", Err: syscall.EADDRINUSE}, "(hint: another program: another port)"},
		{&net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}, "(hint: this machine has no such address: another port)"},
		{&net.OpError{Op: "listen", Err: &net.DNSError{Name: "a.example"}}, "(hint: this machine has no such address: another port)"},
	} {
		if got := unbound(c.err, "another program", "another port"); !errors.Is(got, c.err) || !strings.HasSuffix(got.Error(), c.want) {
			t.Errorf("%v: got %v, want %s", c.err, got, c.want)
		}
	}
}

// Flags may stand anywhere among a command's arguments.
func TestFlagsAmongArguments(t *testing.T) {
	for _, args := range [][]string{
		{"purge", "--soft", "--tag", "a", "http://a/1", "http://a/2"},
		{"purge", "http://a/1", "--soft", "--tag", "a", "http://a/2"},
		{"purge", "http://a/1", "http://a/2", "--tag=a", "--soft"},
		{"purge", "http://a/1", "--tag", "a", "--soft", "--", "http://a/2"},
	} {
		var c commands
		parser, err := kong.New(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(together(parser.Model, args)); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		if p := c.Purge; !p.Soft || !slices.Equal(p.Tag, []string{"a"}) || !slices.Equal(p.URLs, []string{"http://a/1", "http://a/2"}) {
			t.Errorf("%q: read as %+v", args, p)
		}
	}
	if got := together(&kong.Application{Node: &kong.Node{}}, []string{"x", "-y"}); !slices.Equal(got, []string{"x", "-y"}) {
		t.Errorf("an unknown command: got %q", got)
	}
}

func TestCheckPrintsEveryError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(path, []byte("trace: {}\ncache: {memory: x, max_object: y}\nsites: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, errs := command("check", path)
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if len(lines) != 4 {
		t.Errorf("got %d lines, want 4:\n%s", len(lines), errs)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, path+":") {
			t.Errorf("line without its place: %s", line)
		}
	}
}

func TestVersionAsJSON(t *testing.T) {
	_, out, _ := command("version", "--json")
	var b build
	if err := json.Unmarshal([]byte(out), &b); err != nil || !strings.HasPrefix(b.Go, "go1.") || b.Version == "" {
		t.Errorf("got %s (%v)", out, err)
	}
}
