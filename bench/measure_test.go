package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHistogramTakesAnyDuration(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 127, 128, 129, 1000, time.Millisecond, time.Second, longest - 1, longest, 2 * longest, math.MaxInt64} {
		var h histogram
		h.add(d)
		want := min(max(d, 0), longest)
		if got := h.quantile(0.5); h.n != 1 || math.Abs(float64(got-want)) > 0.01*float64(want) || h.max != max(d, 0) {
			t.Errorf("%d: got %d of %d, most %d; want %d within 1 %%, most %d", d, got, h.n, h.max, want, max(d, 0))
		}
	}
}

// TestHistogramQuantiles compares with a sorted slice.
func TestHistogramQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var whole, a, b histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(10 + 3*rng.NormFloat64()))
		all = append(all, d)
		whole.add(d)
		[]*histogram{&a, &b}[i%2].add(d)
	}
	slices.Sort(all)
	a.merge(&b)
	a.merge(new(histogram))
	if a.n != whole.n || a.max != whole.max || !a.counts.Equals(whole.counts) {
		t.Error("two halves merged are not the whole")
	}
	for _, q := range []float64{0, 0.001, 0.5, 0.99, 0.999, 1} {
		want := all[max(int(math.Ceil(q*float64(len(all))))-1, 0)]
		if got := whole.quantile(q); got < want || float64(got-want) > 0.01*float64(want)+1 {
			t.Errorf("quantile %v: got %v, want %v to %v", q, got, want, time.Duration(float64(want)*1.01))
		}
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("of nothing: got %v, want 0", got)
	}
}

func TestZipfChoosesAsOftenAsItShould(t *testing.T) {
	const n, skew, draws = 1000, 0.8, 200_000
	z := newZipf(n, skew, 3)
	counts := make([]int, n)
	for range draws {
		counts[z.next()]++
	}
	total := 0.0
	for k := range n {
		total += math.Pow(float64(k+1), -skew)
	}
	for _, k := range []int{0, 1, 9, 99} {
		want := draws * math.Pow(float64(k+1), -skew) / total
		if math.Abs(float64(counts[k])-want) > 5*math.Sqrt(want) {
			t.Errorf("number %d of %d draws: got %d times, want about %.0f", k, draws, counts[k], want)
		}
	}
	a, b := zipfTrace(keySpec{Count: 50, Skew: 1, Seed: 1}, 100), zipfTrace(keySpec{Count: 50, Skew: 1, Seed: 1}, 100)
	if !slices.Equal(a, b) {
		t.Error("equal seeds gave different traces")
	}
	if slices.Equal(a, zipfTrace(keySpec{Count: 50, Skew: 1, Seed: 2}, 100)) {
		t.Error("different seeds gave equal traces")
	}
}

func TestSizesAreTheWebs(t *testing.T) {
	var sizes []int
	for id := range 20_000 {
		n := objectSize(id)
		if n < 1<<10 || n > 1<<20 {
			t.Fatalf("object %d: got %d bytes, want 1 KiB to 1 MiB", id, n)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	if median := sizes[len(sizes)/2]; median < 15_000 || median > 18_000 {
		t.Errorf("got a median of %d bytes, want about 16 KiB", median)
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec keySpec
		want string
	}{
		{"one", keySpec{Policy: "hour", Kind: "one", Size: 5, First: 3}, "/hour/5/3 /hour/5/3 /hour/5/3"},
		{"unique", keySpec{Policy: "hour", Kind: "unique", Size: 5, First: 3}, "/hour/5/3 /hour/5/4 /hour/5/5"},
		{"cycle", keySpec{Policy: "hour", Kind: "cycle", Size: 5, Count: 2}, "/hour/5/0 /hour/5/1 /hour/5/0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := tt.spec.keys(3)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{keys(0).path(), keys(1).path(), keys(2).path()}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if _, err := (keySpec{Kind: "guess"}).keys(1); err == nil {
		t.Error("kind guess: got no error")
	}
}

// TestSimulationsByHand uses a cache for two of the objects, which are made of
// equal size by choice.
func TestSimulationsByHand(t *testing.T) {
	a, b, c := likeSized(t)
	capacity := int64(2*objectSize(a) + objectSize(a)/2)
	trace := []int{a, b, a, c, b, a}
	for _, tt := range []struct {
		name string
		run  func([]int, int, int64) ratio
		want float64
	}{
		{"lru", simulateLRU, 1. / 6},       // a; c removes b, b removes a
		{"belady", simulateBelady, 3. / 6}, // a; c is refused, b, a
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.run(trace, 0, capacity).Requests; math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("trace %v: got hit ratio %v, want %v", trace, got, tt.want)
			}
		})
	}
}

// likeSized returns three objects whose sizes differ by less than a tenth.
func likeSized(t *testing.T) (a, b, c int) {
	t.Helper()
	var like []int
	for id := 0; id < 10_000 && len(like) < 3; id++ {
		if n := objectSize(id); n > 16_000 && n < 17_000 {
			like = append(like, id)
		}
	}
	if len(like) < 3 {
		t.Fatal("no three objects are of like size")
	}
	return like[0], like[1], like[2]
}

// TestSimulationsAreOrdered: on a Zipf trace nothing beats the clairvoyant, and
// S3-FIFO beats LRU, as its authors measured.
func TestSimulationsAreOrdered(t *testing.T) {
	trace := zipfTrace(keySpec{Count: 20_000, Skew: 0.9, Seed: 1}, 60_000)
	const capacity = 16 << 20
	lru, s3, best := simulateLRU(trace, 20_000, capacity), simulateS3FIFO(trace, 20_000, capacity), simulateBelady(trace, 20_000, capacity)
	if !(lru.Requests < s3.Requests && s3.Requests < best.Requests) {
		t.Errorf("got hit ratios LRU %.3f, S3-FIFO %.3f, Belady %.3f; want them rising", lru.Requests, s3.Requests, best.Requests)
	}
	if lru.Requests < 0.1 || best.Requests > 0.9 {
		t.Errorf("got LRU %.3f, Belady %.3f: the trace tells nothing apart", lru.Requests, best.Requests)
	}
}
