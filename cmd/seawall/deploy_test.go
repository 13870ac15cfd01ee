package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"seawall/origin"
)

// Every example configuration passes check as it stands.
func TestExampleConfigurations(t *testing.T) {
	paths, err := filepath.Glob("../../deploy/config/*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatalf("examples: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			code, out, errs := command("check", path)
			if code != exitDone || !strings.Contains(out, ": OK, 1 site") || errs != "" {
				t.Errorf("exit %d, %q, %q; want 0 and OK", code, out, errs)
			}
		})
	}
}

// complete.yaml has every key of the table.
func TestCompleteHasEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../deploy/config/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	names = appendNames(names, settingsKeys())
	names = appendNames(names, listenKeys())
	names = appendNames(names, adminKeys())
	names = appendNames(names, tokenKeys())
	names = appendNames(names, tlsKeys())
	names = appendNames(names, certificateKeys())
	names = appendNames(names, storeKeys())
	names = appendNames(names, siteKeys())
	names = appendNames(names, originKeys())
	names = appendNames(names, serverKeys())
	names = appendNames(names, balanceKeys())
	names = appendNames(names, stickyKeys())
	names = appendNames(names, healthKeys())
	names = appendNames(names, passiveKeys())
	names = appendNames(names, timeoutKeys())
	names = appendNames(names, retryKeys())
	names = appendNames(names, breakerKeys())
	names = appendNames(names, hedgeKeys())
	names = appendNames(names, poolKeys())
	names = appendNames(names, originTLSKeys())
	names = appendNames(names, resolveKeys())
	names = appendNames(names, routeKeys())
	names = appendNames(names, policyKeys())
	names = appendNames(names, queryKeys())
	names = appendNames(names, keyKeys())
	names = appendNames(names, ruleKeys())
	names = appendNames(names, limitKeys())
	names = appendNames(names, accessKeys())
	names = appendNames(names, attachKeys())
	names = appendNames(names, functionKeys())
	names = appendNames(names, functionLimitKeys())
	names = appendNames(names, upstreamKeys())
	names = appendNames(names, geoKeys())
	names = appendNames(names, namedKeyKeys())
	names = appendNames(names, jwksKeys())
	names = appendNames(names, nodeKeys())
	names = appendNames(names, logKeys())
	if len(names) < 50 {
		t.Fatalf("only %d keys: %v", len(names), names)
	}
	for _, name := range names {
		if !regexp.MustCompile(`(?m)^[ -]*` + name + `:`).Match(text) {
			t.Errorf("complete.yaml has no %s", name)
		}
	}
}

func appendNames[T any](names []string, keys []key[T]) []string {
	for _, k := range keys {
		if !k.later {
			names = append(names, k.name)
		}
	}
	return names
}

// What complete.yaml says of defaults is what the table has: with the examples
// taken out, it means the same as an empty file.
func TestCompleteShowsDefaults(t *testing.T) {
	s, err := loadSettings("../../deploy/config/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, site := defaultSettings(), loneSite(nil)
	got := s.Sites[0]
	if s.Listen != d.Listen || s.Cache.Memory != d.Cache.Memory || s.Cache.MaxObject != s.Cache.Memory/8 ||
		s.Encode.Background != d.Encode.Background || s.Encode.Ratio != d.Encode.Ratio || s.Log != d.Log || s.Node != d.Node || s.TLS.MinVersion != d.TLS.MinVersion || s.Admin.Rate != d.Admin.Rate {
		t.Errorf("got %+v, want the defaults %+v", s, d)
	}
	if got.HostHeader != "client" || got.Limits.URL != site.Limits.URL {
		t.Errorf("site: got %+v, want the defaults %+v", got, site)
	}
	// What has no default, and the example of the other choice.
	got.Origins, got.HostHeader, got.TLS, got.Balance.Sticky, got.Retry.On = nil, "origin", originTLSSettings{}, origin.Sticky{}, nil
	got.Health.Path, got.Health.Host, got.Health.Status, got.Health.Body = "", "", nil, ""
	if got.Hedge.On && got.Hedge.Delay == 0 && got.Hedge.Least == 10*time.Millisecond {
		got.Hedge = origin.Hedge{}
	}
	if !reflect.DeepEqual(got.originSettings, site.originSettings) {
		t.Errorf("origins: got %+v, want the defaults %+v", got.originSettings, site.originSettings)
	}
	got.Encode.Codings, got.Encode.Types = nil, nil
	if a, b := got.edge(nil).Encode, site.edge(nil).Encode; !reflect.DeepEqual(a, b) || b == nil {
		t.Errorf("encode: got %+v, want the defaults %+v, which are on", a, b)
	}
	got.Cache.TTL, got.Cache.Targeted, got.Cache.Query, got.Cache.Key, got.Cache.Rules = 0, nil, querySettings{}, keySettings{}, nil
	if a, b := got.edge(nil).Cache, site.edge(nil).Cache; a.HeuristicFraction != b.HeuristicFraction || a.HeuristicMax != b.HeuristicMax ||
		a.StaleIfUnreachable != b.StaleIfUnreachable || a.HitForMiss != b.HitForMiss || a.SetCookie != b.SetCookie || a.PassEncoding || a.HonourReload || a.Bypass {
		t.Errorf("cache: got %+v, want the defaults %+v", a, b)
	}
}

// deployed returns the lines of a file in deploy, without comments; a backslash
// at its end joins a line to the next.
func deployed(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
			lines = append(lines, line)
		}
	}
	return lines
}

// parses fails the test if args are no command line of seawall, and returns
// what they say.
func parses(t *testing.T, args []string) *commands {
	t.Helper()
	c := new(commands)
	parser, err := kong.New(c, kong.Name("seawall"), kong.Exit(func(int) {}), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Errorf("seawall %q: %v", args, err)
	}
	return c
}

func TestSystemdUnit(t *testing.T) {
	unit := make(map[string][]string)
	for _, line := range deployed(t, "systemd/seawall.service") {
		if name, value, ok := strings.Cut(line, "="); ok {
			unit[name] = append(unit[name], value)
		} else if line[0] != '[' {
			t.Errorf("not a line of a unit: %q", line)
		}
	}
	for name, want := range map[string]string{
		"DynamicUser": "yes", "StateDirectory": "seawall", "ProtectSystem": "strict", "NoNewPrivileges": "yes",
		"CapabilityBoundingSet": "CAP_NET_BIND_SERVICE", "AmbientCapabilities": "CAP_NET_BIND_SERVICE",
		"SystemCallFilter": "@system-service ~@privileged",
		"ExecReload":       "/usr/local/bin/seawall check /etc/seawall/seawall.yaml --data %S/seawall /bin/kill -HUP $MAINPID",
		"User":             "",                        // DynamicUser's
		"Environment":      "GODEBUG=http2xconnect=1", // else no WebSocket over HTTP/2
	} {
		if got := strings.Join(unit[name], " "); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	start := strings.Fields(strings.Join(unit["ExecStart"], " "))
	if len(start) < 2 || start[0] != "/usr/local/bin/seawall" {
		t.Fatalf("ExecStart=%q", start)
	}
	serve := parses(t, start[1:]).Serve
	if serve.Config == "" || serve.Data == nil || *serve.Data != "%S/seawall" {
		t.Errorf("ExecStart=%q: want --config, and --data in StateDirectory", start)
	}
	stop, err := strconv.Atoi(strings.Join(unit["TimeoutStopSec"], " "))
	if needs := serve.Drain + lastWait; err != nil || time.Duration(stop)*time.Second <= needs {
		t.Errorf("TimeoutStopSec=%q, want more seconds than the node may take to end: %s", unit["TimeoutStopSec"], needs)
	}
	most := defaultSettings().Listen.Connections
	if files, err := strconv.Atoi(strings.Join(unit["LimitNOFILE"], " ")); err != nil || files < 2*most {
		t.Errorf("LimitNOFILE=%q, want room for %d clients and as many connections to origins", unit["LimitNOFILE"], most)
	}
}

func TestDockerfile(t *testing.T) {
	last := make(map[string][]string) // of the last stage
	built := false
	for _, line := range deployed(t, "Dockerfile") {
		what, rest, _ := strings.Cut(line, " ")
		if what == "FROM" {
			clear(last)
		}
		last[what] = append(last[what], strings.TrimSpace(rest))
		built = built || what == "RUN" && strings.Contains(rest, "CGO_ENABLED=0 go build") && strings.Contains(rest, "./cmd/seawall")
	}
	if !built {
		t.Error("no static build of ./cmd/seawall")
	}
	user := strings.Join(last["USER"], " ")
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) {
		t.Errorf("USER %q, want a number that is not root's: an empty image has no names", user)
	}
	if !strings.Contains(strings.Join(last["COPY"], "\n"), "--chown="+user+" --chmod=0700 /out/data /data") {
		t.Errorf("COPY %q: /data is not the user's", last["COPY"])
	}
	for what, want := range map[string]string{
		"FROM": "scratch", "VOLUME": "/data", "ENV": "XDG_STATE_HOME=/data GODEBUG=http2xconnect=1", "EXPOSE": "8080/tcp 8443/tcp 8443/udp", "ENTRYPOINT": `["/seawall"]`,
	} {
		if got := strings.Join(last[what], " "); got != want {
			t.Errorf("%s %s, want %s", what, got, want)
		}
	}
	var args []string
	if err := json.Unmarshal([]byte(strings.Join(last["CMD"], "")), &args); err != nil {
		t.Fatalf("CMD %q: %v", last["CMD"], err)
	}
	parses(t, args)
	s := defaultSettings().Listen
	if s.HTTP != ":8080" || s.HTTPS != ":8443" {
		t.Errorf("the node listens on %s and %s, and EXPOSE says otherwise", s.HTTP, s.HTTPS)
	}
}

// QUIC asks the kernel for buffers of 7 MiB and gets no more than is allowed.
func TestSysctls(t *testing.T) {
	set := make(map[string]string)
	for _, line := range deployed(t, "sysctl.d/60-seawall.conf") {
		name, value, ok := strings.Cut(line, " = ")
		if !ok || set[name] != "" {
			t.Errorf("not a setting, or twice: %q", line)
		}
		set[name] = value
	}
	for _, name := range []string{"net.core.rmem_max", "net.core.wmem_max"} {
		if n, err := strconv.Atoi(set[name]); err != nil || n < 7<<20 {
			t.Errorf("%s = %q, want at least %d", name, set[name], 7<<20)
		}
	}
}
