package edge

import "testing"

// A rule's path is that of every way to write it which origins take for the same.
func TestRulesSeeEncodedPaths(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/account/*", "/account/x", true},
		{"/account/*", "/%61cc%6Funt/x", true},
		{"/account/*", "/account%2Fx", false}, // one segment, and never decoded
		{"/%61ccount/*", "/account/x", true},
		{"/a%2Fb", "/a%2Fb", true},
		{"/café", "/caf%C3%A9", true},
		{"/caf%c3%a9", "/café", true},
		{"/a%25b", "/a%25b", true},
		{"/ab", "/%2561b", false}, // decoded once
		{"/a?", "/a%3F", false},
		{"/a b", "/a%20b", false},
		{"/a%2", "/a%2", true},
	} {
		s, err := newSite(Site{Name: "a", Origin: rt(nil), Rules: []Rule{{Path: c.pattern, Bypass: new(bool)}}}, NewStats())
		if err != nil {
			t.Fatal(err)
		}
		if got := s.policyFor(c.path, nil, 0) != s.base; got != c.want {
			t.Errorf("the rule of %s for %s: got %v, want %v", c.pattern, c.path, got, c.want)
		}
	}
}
