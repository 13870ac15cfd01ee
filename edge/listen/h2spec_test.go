package listen

import (
	"errors"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// h2specAllowed are the cases of h2spec 2.2.1 that net/http fails by itself,
// each with the reason why it may.
var h2specAllowed = map[string]string{
	"Sends invalid connection preface":                                                               "in clear it is HTTP/1.1, and answered as that",
	"Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                          "net/http takes a setting named twice for an attack",
	"Sends a HEADERS frame that contains the connection-specific header field":                       "answered 400 in place of a reset: RFC 9113, 8.1.1, allows it",
	"Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "likewise",
}

// TestH2spec runs h2spec where it is installed:
// go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible.
func TestH2spec(t *testing.T) {
	program, err := exec.LookPath("h2spec")
	if err != nil {
		t.Skip("h2spec is not on PATH: HTTP/2 is not checked against it")
	}
	t.Parallel() // it waits for two seconds where nothing is to come
	n := startFull(t, &Server{Handler: http.HandlerFunc(hello)})
	failed := regexp.MustCompile(`(?m)^ *× \d+: (.*)$`)
	all := regexp.MustCompile(`(?m)^(\d+) tests, `)
	host, port, _ := net.SplitHostPort(n.secure)
	out, err := exec.Command(program, "-t", "-k", "-h", host, "-p", port).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if m := all.FindSubmatch(out); m == nil || string(m[1]) != "145" {
		t.Fatalf("it did not run its 145 tests:\n%s", out)
	}
	for _, m := range failed.FindAllSubmatch(out, -1) {
		if what := strings.TrimSpace(string(m[1])); h2specAllowed[what] == "" {
			t.Errorf("failed: %s", what)
		}
	}
	until(t, "nobody is left", n.nobody) // net/http keeps a connection for a second behind a GOAWAY
}
