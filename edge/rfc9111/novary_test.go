package rfc9111

import "testing"

func TestNoVarySearch(t *testing.T) {
	for _, test := range []struct {
		name, field, a, b string
		want              bool // a and b are equivalent
	}{
		{"§6 ignored names", `params=("utm" "id")`, "utm=1&q=2", "q=2&id=3", true},
		{"§6 others still select", `params=("utm")`, "utm=1&q=2", "utm=1&q=3", false},
		{"§6 every occurrence", `params=("utm")`, "utm=1&q=2&utm=3", "q=2", true},
		{"§6 order selects by default", `params=("utm")`, "a=1&b=2", "b=2&a=1", false},
		{"§6 order ignored", "key-order", "a=1&b=2", "b=2&a=1", true},
		{"§6 order of equal names still selects", "key-order", "a=1&a=2", "a=2&a=1", false},
		{"§6 both", `key-order, params=("utm")`, "b=1&utm=1&a=2", "a=2&b=1", true},
		{"§6 all ignored", "params", "a=1&b=2", "", true},
		{"§6 all but some", `params, except=("q")`, "a=1&q=2", "q=2&b=9", true},
		{"§6 all but some, which select", `params, except=("q")`, "q=2", "q=3", false},
		{"§6 all but none", `params, except=()`, "q=2", "q=3", true},
		{"§6 over all lines", "key-order\nparams=(\"utm\")", "b=1&a=2&utm=1", "a=2&b=1", true},
		{"§6 escapes", `params=("%c3%a9+x")`, "%C3%A9%20x=1&a=%41", "a=A", true},
		{"§6 escapes with every kind of digit", "key-order", "a=%09%90%aF%Fa", "a=\t\x90\xaf\xfa", true},
		{"§6 plus is a space", "key-order", "a=b+c", "a=b%20c", true},
		{"§6 a malformed escape stays", "key-order", "a=%zz", "a=%25zz", true},
		{"§6 a value that looks like another parameter", "key-order", "a=1%26b%3D2", "a=1&b=2", false},
		{"§6 no value and an empty one", "key-order", "a", "a=", true},
		{"§6 empty parameters", "key-order", "&a=1&&", "a=1", true},
		{"§6 names are case-sensitive", `params=("utm")`, "UTM=1", "", false},
		{"§6 bytes that are not UTF-8", "key-order", "a=%ff", "a=%fe", false},
	} {
		n, ok := ParseNoVarySearch(splitLines(test.field))
		if !ok {
			t.Errorf("%s: %q: refused", test.name, test.field)
			continue
		}
		a, b := n.Canonical(test.a), n.Canonical(test.b)
		if (a == b) != test.want {
			t.Errorf("%s: %q: %q is %q, %q is %q, want equal %v", test.name, test.field, test.a, a, test.b, b, test.want)
		}
		if again := n.Canonical(a); again != a {
			t.Errorf("%s: %q: the canonical form %q has canonical form %q", test.name, test.field, a, again)
		}
	}
}

func TestInvalidNoVarySearch(t *testing.T) {
	for _, field := range []string{
		"", "key-order=1", `key-order="x"`, "key-order=()", "params=1", `params="utm"`, "params=(utm)", "params=(1)",
		`params=("a" b)`, `except=("q")`, `params=?0, except=("q")`, `params=("a"), except=("q")`, `params, except`,
		`params, except="q"`, "params, except=(1)", "Key-Order", "key-order,", "(",
		// Without effect: only equal queries are equivalent.
		"key-order=?0", "params=?0", "params=()", "foo",
	} {
		if n, ok := ParseNoVarySearch(splitLines(field)); ok {
			t.Errorf("§6 %q: got %+v, want it refused", field, n)
		}
	}
	if _, ok := ParseNoVarySearch(nil); ok {
		t.Error("§6 absent: want it refused")
	}
}
