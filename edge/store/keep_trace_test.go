package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

// keepTrace is a generated sequence of requests. ids index sizes, which are
// body bytes; an object's cost is its size and keepOverhead.
type keepTrace struct {
	name     string
	capacity int64
	ids      []uint32
	sizes    []int32
}

const keepOverhead = 250

func (t *keepTrace) cost(id uint32) int64 { return int64(t.sizes[id]) + keepOverhead }

// The parameters are chosen so that LRU scores as in the project's reference
// table (zipf 128M .512, 512M .661; one-hit .319, .416; scan .522; shifting
// .512, .654; recency .542, .959), within two points on each row.
const (
	keepPopulation  = 150_000
	keepExponent    = 0.92
	keepOneHit      = 0.3     // part of requests for objects never asked again
	keepScanEvery   = 50_000  // requests from one scan's begin to the next
	keepScanLength  = 7_500   // requests of a scan
	keepScanObjects = 50_000  // objects scanned round and round
	keepShiftEvery  = 100_000 // requests until the order of popularity shifts
	keepShiftBy     = 2_000   // ranks: the most popular ones fall to the end
	keepRecencyAge  = 4_000   // mean age of what is asked for, in births
	keepRecencyBirt = 0.025   // births a request
	keepBurstGap    = 1_500   // mean requests between those for one object
)

// keepRow names a generated trace.
type keepRow struct {
	kind     string
	capacity int64 // MiB
}

// keepRows are the rows of the reference table.
var keepRows = [...]keepRow{
	{"zipf", 128}, {"zipf", 512},
	{"one-hit", 128}, {"one-hit", 512},
	{"scan", 512},
	{"shifting", 128}, {"shifting", 512},
	{"recency", 128}, {"recency", 512},
}

// generate returns a trace of n requests with populations, periods and
// capacity multiplied by scale. The same arguments give the same trace.
func (row keepRow) generate(n int, scale float64) *keepTrace {
	g := &keepGenerator{
		rand:  rand.New(rand.NewPCG(1, 2)),
		scale: scale,
		trace: &keepTrace{
			name:     fmt.Sprintf("%s %dM", row.kind, row.capacity),
			capacity: int64(float64(row.capacity<<20) * scale),
			ids:      make([]uint32, 0, n),
		},
	}
	g.zipf = newKeepZipf(g.scaled(keepPopulation), keepExponent)
	g.next = uint32(g.scaled(keepPopulation))
	switch row.kind {
	case "zipf":
		g.each(n, func(int) uint32 { return g.popular() })
	case "one-hit":
		g.each(n, g.oneHit)
	case "scan":
		g.each(n, g.scan)
	case "shifting":
		g.each(n, g.shifting)
	case "recency":
		g.next = 0
		g.each(n, g.recency)
	case "burst":
		g.bursts(n)
	default:
		panic("no such trace: " + row.kind)
	}
	g.trace.sizes = keepSizes(int(g.next) + 1)
	return g.trace
}

type keepGenerator struct {
	rand  *rand.Rand
	zipf  *keepZipf
	scale float64
	next  uint32 // the first id not used
	trace *keepTrace
}

func (g *keepGenerator) scaled(x float64) int { return max(1, int(x*g.scale)) }

func (g *keepGenerator) each(n int, id func(i int) uint32) {
	for i := range n {
		g.trace.ids = append(g.trace.ids, id(i))
	}
}

func (g *keepGenerator) popular() uint32 { return uint32(g.zipf.rank(g.rand)) }

func (g *keepGenerator) oneHit(int) uint32 {
	if g.rand.Float64() >= keepOneHit {
		return g.popular()
	}
	g.next++
	return g.next - 1
}

func (g *keepGenerator) scan(i int) uint32 {
	every, length, objects := g.scaled(keepScanEvery), g.scaled(keepScanLength), g.scaled(keepScanObjects)
	first := uint32(len(g.zipf.cumulated))
	g.next = first + uint32(objects)
	at := i%every - (every - length)
	if at < 0 {
		return g.popular()
	}
	return first + uint32((i/every*length+at)%objects)
}

func (g *keepGenerator) shifting(i int) uint32 {
	offset := i / g.scaled(keepShiftEvery) * g.scaled(keepShiftBy)
	return uint32((int(g.popular()) + offset) % len(g.zipf.cumulated))
}

func (g *keepGenerator) recency(i int) uint32 {
	mean := float64(g.scaled(keepRecencyAge))
	oldest := int(3 * mean)
	newest := oldest + int(float64(i)*keepRecencyBirt)
	g.next = uint32(newest + 1)
	return uint32(max(0, newest-int(g.rand.ExpFloat64()*mean)))
}

// bursts makes every second request one for a popular object; the others are
// for objects asked for two to four times soon after their birth, never again.
func (g *keepGenerator) bursts(n int) {
	due := make(map[int][]uint32)
	g.each(n, func(i int) uint32 {
		if i%2 == 0 {
			return g.popular()
		}
		ids := due[i]
		delete(due, i)
		if len(ids) == 0 {
			at := i
			for range 1 + g.rand.IntN(3) {
				at += 2 + 2*int(g.rand.ExpFloat64()*keepBurstGap*g.scale/2)
				due[at] = append(due[at], g.next)
			}
			g.next++
			return g.next - 1
		}
		if len(ids) > 1 {
			due[i+2] = append(due[i+2], ids[1:]...)
		}
		return ids[0]
	})
}

// keepSizes returns n lognormal sizes with median 16 KiB (mean about 27 KB).
func keepSizes(n int) []int32 {
	r := rand.New(rand.NewPCG(7, 99))
	sizes := make([]int32, n)
	for i := range sizes {
		sizes[i] = int32(min(max(16384*math.Exp(r.NormFloat64()), 64), 8<<20))
	}
	return sizes
}

// keepZipf draws ranks with probability proportional to (rank+1)^-exponent;
// rand.Zipf needs an exponent above 1, and real traffic is below.
type keepZipf struct{ cumulated []float64 }

func newKeepZipf(n int, exponent float64) *keepZipf {
	z := &keepZipf{cumulated: make([]float64, n)}
	sum := 0.0
	for i := range n {
		sum += math.Pow(float64(i+1), -exponent)
		z.cumulated[i] = sum
	}
	return z
}

func (z *keepZipf) rank(r *rand.Rand) int {
	n := len(z.cumulated)
	return min(sort.SearchFloat64s(z.cumulated, r.Float64()*z.cumulated[n-1]), n-1)
}
