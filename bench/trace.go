package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

// A zipf chooses numbers from 0 to n-1, number k as often as 1/(k+1)^skew. The
// standard library's needs a skew above 1; traffic of caches has less.
type zipf struct {
	sums []float64 // sums[k] is the share of 0 to k
	rng  *rand.Rand
}

// newZipf returns a zipf of n > 0 numbers; equal seeds choose alike.
func newZipf(n int, skew float64, seed uint64) *zipf {
	sums := make([]float64, n)
	total := 0.0
	for k := range sums {
		total += math.Pow(float64(k+1), -skew)
		sums[k] = total
	}
	for k := range sums {
		sums[k] /= total
	}
	return &zipf{sums: sums, rng: rand.New(rand.NewPCG(seed, 0x5ea3a11))}
}

func (z *zipf) next() int {
	return min(sort.SearchFloat64s(z.sums, z.rng.Float64()), len(z.sums)-1)
}

// keySpec says which objects a load asks for.
type keySpec struct {
	Policy string  // what the origin says of them: see origin.go
	Kind   string  // one, unique, cycle or zipf
	Size   int     // of one body; 0 chooses by objectSize
	Count  int     // of keys, for cycle and zipf
	First  int     // number of the first, for unique
	Skew   float64 // for zipf
	Seed   uint64
}

// keys returns what turns a request's number into an object. It may be used by
// many at once. length is how many requests of a zipf will be asked for.
func (k keySpec) keys(length int) (func(i int) object, error) {
	of := func(id int) object {
		size := k.Size
		if size == 0 {
			size = objectSize(id)
		}
		return object{policy: k.Policy, size: size, id: id}
	}
	switch k.Kind {
	case "one":
		return func(int) object { return of(k.First) }, nil
	case "unique":
		return func(i int) object { return of(k.First + i) }, nil
	case "cycle":
		return func(i int) object { return of(k.First + i%max(k.Count, 1)) }, nil
	case "zipf":
		ids := zipfTrace(k, length)
		return func(i int) object { return of(ids[i%len(ids)]) }, nil
	}
	return nil, fmt.Errorf("no such choice of keys: %q", k.Kind)
}

// zipfTrace returns the numbers of the objects that k asks for, in order.
func zipfTrace(k keySpec, length int) []int {
	z := newZipf(max(k.Count, 1), k.Skew, k.Seed)
	ids := make([]int, max(length, 1))
	for i := range ids {
		ids[i] = z.next()
	}
	return ids
}

// objectSize returns the body size of an object: lognormal around 16 KiB as the
// web's are, from 1 KiB to 1 MiB, the same in every run.
func objectSize(id int) int {
	rng := rand.New(rand.NewPCG(uint64(id), 0x51ce))
	size := 16384 * math.Exp(1.2*rng.NormFloat64())
	return int(min(max(size, 1<<10), 1<<20))
}
