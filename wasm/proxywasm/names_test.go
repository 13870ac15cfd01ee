package proxywasm

import (
	"fmt"
	"math/rand"
	"net/http"
	"strings"
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
		c, name, value := change(random.Intn(3)), names[random.Intn(len(names))], fmt.Sprint("/", random.Intn(4))
		changed, ok := g.changing(v, c, []byte(name), []byte(value), 1<<20)
		got := g.count(v)
		if n, size := v.sums(); got.n != n || got.size != size {
			t.Fatalf("change %d of %q to %q (%v, %v): got %d pairs of %d bytes, want %d of %d", c, name, value, changed, ok, got.n, got.size, n, size)
		}
	}
}

// TestRememberedValuesAreNotShared gives two messages the same values, and has
// one of them change.
func TestRememberedValuesAreNotShared(t *testing.T) {
	g := &guest{}
	var first, second abi.Message
	set := func(m *abi.Message, c change, name, value string) {
		t.Helper()
		if _, ok := g.changing(newFields(m, 1), c, []byte(name), []byte(value), 1<<20); !ok {
			t.Fatalf("change %d of %s to %q is refused", c, name, value)
		}
	}
	for _, m := range []*abi.Message{&first, &second} {
		set(m, replace, "x-a", "one")
		set(m, replace, "x-a", "one")
		set(m, add, "x-b", " spaced ")
		set(m, replace, "host", "h") // of a response: a field as any other
	}
	set(&first, add, "x-a", "two")
	set(&first, add, "x-b", "spaced")
	same(t, "first", first.Header, http.Header{"X-A": {"one", "two"}, "X-B": {"spaced", "spaced"}, "Host": {"h"}})
	same(t, "second", second.Header, http.Header{"X-A": {"one"}, "X-B": {"spaced"}, "Host": {"h"}})

	request := abi.Message{Authority: "was"}
	if _, ok := g.changing(newFields(&request, 0), replace, []byte("host"), []byte("h"), 1<<20); !ok || request.Authority != "h" || len(request.Header) != 0 {
		t.Errorf("a request's host: got %q and %v, want h and no field", request.Authority, request.Header)
	}
	if _, ok := g.changing(newFields(&second, 1), replace, []byte("x-a"), []byte("one"), 2); ok {
		t.Error("a remembered value is taken over the limit")
	}
	long := strings.Repeat("v", maxNameLength+1)
	set(&second, replace, "x-a", long)
	if g.known([]byte("x-a")).is([]byte(long)) {
		t.Error("a long value is remembered")
	}
}

// TestContextsById keeps more contexts than there are slots, in any order.
func TestContextsById(t *testing.T) {
	var all streams
	want, random := map[uint32]*stream{}, rand.New(rand.NewSource(5))
	for range 5000 {
		id := uint32(random.Intn(60))
		switch s := want[id]; {
		case s == nil:
			s = &stream{id: id, x: &abi.Exchange{}}
			want[id] = s
			all.add(s)
		default:
			delete(want, id)
			all.remove(s)
		}
		if all.len() != len(want) {
			t.Fatalf("%d contexts, want %d", all.len(), len(want))
		}
		for id := range uint32(60) {
			if got := all.of(id); got != want[id] {
				t.Fatalf("context %d: got %v, want %v", id, got, want[id])
			}
		}
	}
	all.forget()
	for id, s := range want {
		if all.len() != 0 || all.of(id) != nil || s.x != nil {
			t.Fatalf("context %d is left, or has its exchange", id)
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
	if len(g.names) > maxNames || g.names[string(long)] != nil {
		t.Errorf("%d names are remembered, want at most %d and none that is long", len(g.names), maxNames)
	}
}
