package meter

// shallow is how deep, in units of depth, functions that cannot recurse may
// nest without being counted.
const shallow = 1024

// graph holds who calls whom. Its nodes are the functions that have code and,
// behind them, the types of indirect calls: a function calls a type, and a
// type every function of it whose reference may be held somewhere.
type graph struct {
	s        *source
	kind     []uint32 // of each type, the first type that is equal
	first    []uint32 // by type: where its functions begin in ofType
	ofType   []uint32
	height   []uint32 // by node: how deep uncounted functions nest from it
	index    []uint32 // by node: when it was met, from 1; 0: not yet
	low      []uint32 // by node: the earliest open node known to be reached
	open     []bool
	stack    []uint32 // open nodes
	walk     []visit
	visited  uint32
	selfcall []bool
}

// visit is a node on the way from the root of the walk.
type visit struct{ node, edge uint32 }

// countDepth marks the functions that count their depth: those that may call
// themselves by any way, and some on each long way of calls. All others can be
// on the stack once, and shallow bounds them together.
func (s *source) countDepth() {
	g := newGraph(s)
	for n := range uint32(len(g.index)) {
		if g.index[n] == 0 {
			g.components(n)
		}
	}
}

func newGraph(s *source) *graph {
	nodes := len(s.bodies) + len(s.types)
	g := &graph{s: s, kind: make([]uint32, len(s.types)), first: make([]uint32, len(s.types)+1),
		height: make([]uint32, nodes), index: make([]uint32, nodes), low: make([]uint32, nodes), open: make([]bool, nodes), selfcall: make([]bool, nodes)}
	seen := make(map[string]uint32, len(s.types))
	var key []byte
	for i, t := range s.types {
		key = appendTypes(key[:0], t)
		k, ok := seen[string(key)]
		if !ok {
			k = uint32(i)
			seen[string(key)] = k
		}
		g.kind[i] = k
	}
	for f := s.hosts; f < len(s.funcs); f++ {
		if s.taken[f] {
			g.first[g.kind[s.funcs[f]]+1]++
		}
	}
	for i := range s.types {
		g.first[i+1] += g.first[i]
	}
	g.ofType = make([]uint32, g.first[len(s.types)])
	next := append([]uint32(nil), g.first...)
	for f := s.hosts; f < len(s.funcs); f++ {
		if k := g.kind[s.funcs[f]]; s.taken[f] {
			g.ofType[next[k]] = uint32(f - s.hosts)
			next[k]++
		}
	}
	return g
}

// appendTypes appends a function type as the binary format has it.
func appendTypes(b []byte, t funcType) []byte {
	b = append(b, 0x60)
	for _, list := range [][]ValueType{t.params, t.results} {
		b = appendU32(b, uint32(len(list)))
		for _, v := range list {
			b = append(b, byte(v))
		}
	}
	return b
}

// callee returns the node that edge number e of n goes to. Without one, more
// is false; a call of a host function gives n itself with host true.
func (g *graph) callee(n, e uint32) (to uint32, host, more bool) {
	bodies := uint32(len(g.s.bodies))
	if n >= bodies {
		at := g.first[n-bodies] + e
		if at >= g.first[n-bodies+1] {
			return 0, false, false
		}
		return g.ofType[at], false, true
	}
	at, end := g.s.bodies[n].calls+int(e), len(g.s.callees)
	if n+1 < bodies {
		end = g.s.bodies[n+1].calls
	}
	if at >= end {
		return 0, false, false
	}
	switch c := g.s.callees[at]; {
	case c&indirect != 0:
		return bodies + g.kind[c&^indirect], false, true
	case c < uint32(g.s.hosts):
		return n, true, true
	default:
		return c - uint32(g.s.hosts), false, true
	}
}

// components finds the groups of nodes that reach one another from root
// (Tarjan 1972), without recursion as the graph may be as deep as it is large.
func (g *graph) components(root uint32) {
	g.enter(root)
	for len(g.walk) > 0 {
		v := &g.walk[len(g.walk)-1]
		to, host, more := g.callee(v.node, v.edge)
		v.edge++
		n := v.node
		switch {
		case !more:
			g.walk = g.walk[:len(g.walk)-1]
			if g.low[n] == g.index[n] {
				g.group(n)
			}
			if len(g.walk) > 0 {
				up := g.walk[len(g.walk)-1].node
				g.low[up] = min(g.low[up], g.low[n])
			}
		case host:
		case g.index[to] == 0:
			g.enter(to)
		case g.open[to]:
			g.low[n] = min(g.low[n], g.index[to])
			g.selfcall[n] = g.selfcall[n] || to == n
		}
	}
}

func (g *graph) enter(n uint32) {
	g.visited++
	g.index[n], g.low[n], g.open[n] = g.visited, g.visited, true
	g.stack = append(g.stack, n)
	g.walk = append(g.walk, visit{node: n})
}

// group closes the nodes from n upwards on the stack, which reach one another.
// All that they call outside of the group has its height already.
func (g *graph) group(n uint32) {
	at := len(g.stack) - 1
	for g.stack[at] != n {
		at--
	}
	members := g.stack[at:]
	g.stack = g.stack[:at]
	var below uint32
	for _, m := range members {
		for e := uint32(0); ; e++ {
			to, host, more := g.callee(m, e)
			if !more {
				break
			}
			if !host && !g.open[to] {
				below = max(below, g.height[to])
			}
		}
	}
	recursive := len(members) > 1 || g.selfcall[n]
	for _, m := range members {
		g.open[m] = false
		g.height[m] = below
		if m >= uint32(len(g.s.bodies)) {
			continue
		}
		b := &g.s.bodies[m]
		b.counted = recursive || below+b.weight > shallow
		if !b.counted {
			g.height[m] += b.weight
		}
	}
}
