package purge

import (
	"errors"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SEAWALL_PURGE_CHILD"); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// plain is a Normal that takes URLs as they are, but for the host's case and
// the scheme's default port.
func plain(raw string) ([]URL, error) {
	scheme, host, rest, ok := splitURL(raw)
	if !ok || host == "bad.example" {
		return nil, errors.New("is of no site")
	}
	path, query := rest, ""
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		path, query = rest[:i], rest[i:]
	}
	if path == "" {
		path = "/"
	}
	host = strings.ToLower(host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[scheme])
	return []URL{{scheme, host, path, query}}, nil
}

func mustPrepare(t testing.TB, r Request) *Prepared {
	t.Helper()
	p, errs := Prepare(r, plain)
	if errs != nil {
		t.Fatalf("Prepare(%+v): %v", r, &InvalidError{errs})
	}
	return p
}

// subject returns a Subject of site "s" at a URL.
func subject(t testing.TB, url string, tags ...string) *Subject {
	t.Helper()
	u, err := plain(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return &Subject{Site: "s", URL: u[0], Tags: tags}
}
