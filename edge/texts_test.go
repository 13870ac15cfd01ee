package edge

import (
	"math"
	"testing"
)

func TestTextsEndInTheirNumber(t *testing.T) {
	made := texts{before: "ttl="}
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, "ttl=0"}, {7, "ttl=7"}, {7, "ttl=7"}, {7 + 4096, "ttl=4103"}, {7, "ttl=7"}, {-1, "ttl=-1"},
		{math.MaxInt64, "ttl=9223372036854775807"}, {math.MinInt64, "ttl=-9223372036854775808"},
	} {
		if got := made.of(c.n); len(got) != 1 || got[0] != c.want {
			t.Errorf("of %d: got %q, want %q", c.n, got, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { made.of(8) }); n != 0 {
		t.Errorf("one made before: %v allocations, want 0", n)
	}
}
