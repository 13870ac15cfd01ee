package proxywasm

import (
	"fmt"
	"math/rand"
	"net/http"
	"testing"

	"seawall/wasm/abi"
)

// TestSumsStayTrue makes many changes and counts all fields after each.
func TestSumsStayTrue(t *testing.T) {
	g := &guest{}
	m := &abi.Message{Method: "GET", Target: "/", Header: http.Header{"Accept": {"a", "b"}}}
	v, random := newFields(m, 0), rand.New(rand.NewSource(3))
	names := []string{"accept", "X-A", "x-a", "host", ":path", ":method", "content-length", "connection", "no name", "x-b"}
	for range 2000 {
		c, name, value := change(random.Intn(3)), names[random.Intn(len(names))], fmt.Sprint("/", random.Intn(1000))
		changed, ok := g.changing(v, c, g.name([]byte(name)), value, 1<<20)
		got := g.count(v)
		if n, size := v.sums(); got.n != n || got.size != size {
			t.Fatalf("change %d of %q to %q (%v, %v): got %d pairs of %d bytes, want %d of %d", c, name, value, changed, ok, got.n, got.size, n, size)
		}
	}
}

// TestNamesAreRememberedWithinBounds has a guest make up names.
func TestNamesAreRememberedWithinBounds(t *testing.T) {
	g := &guest{}
	for i := range 1000 {
		name := fmt.Sprintf("X-%d", i)
		for range 2 {
			if got, want := g.name([]byte(name)), nameOf(name); got != want {
				t.Fatalf("%s: got %+v, want %+v", name, got, want)
			}
		}
	}
	long := make([]byte, 100_000)
	g.name(long)
	if len(g.names) > maxNames || g.names[string(long)] != (fieldName{}) {
		t.Errorf("%d names are remembered, want at most %d and none that is long", len(g.names), maxNames)
	}
}
