package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
	names = appendNames(names, storeKeys())
	names = appendNames(names, siteKeys())
	names = appendNames(names, timeoutKeys())
	names = appendNames(names, poolKeys())
	names = appendNames(names, policyKeys())
	names = appendNames(names, queryKeys())
	names = appendNames(names, keyKeys())
	names = appendNames(names, ruleKeys())
	names = appendNames(names, limitKeys())
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
	if s.Listen != d.Listen || s.Cache.Memory != d.Cache.Memory || s.Cache.MaxObject != s.Cache.Memory/8 || s.Log != d.Log || s.Node != d.Node {
		t.Errorf("got %+v, want the defaults %+v", s, d)
	}
	if got.Timeouts != site.Timeouts || got.Pool != site.Pool || got.HostHeader != "client" || got.Limits.URL != site.Limits.URL {
		t.Errorf("site: got %+v, want the defaults %+v", got, site)
	}
	got.Cache.TTL, got.Cache.Targeted, got.Cache.Query, got.Cache.Key, got.Cache.Rules = 0, nil, querySettings{}, keySettings{}, nil
	if a, b := got.edge(nil).Cache, site.edge(nil).Cache; a.HeuristicFraction != b.HeuristicFraction || a.HeuristicMax != b.HeuristicMax ||
		a.StaleIfUnreachable != b.StaleIfUnreachable || a.HitForMiss != b.HitForMiss || a.SetCookie != b.SetCookie || a.PassEncoding || a.HonourReload || a.Bypass {
		t.Errorf("cache: got %+v, want the defaults %+v", a, b)
	}
}
