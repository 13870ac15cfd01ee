package store

import "math"

const (
	// keepGhostSpan is how long young's dropped keys are remembered, in bytes
	// dropped from young since, as a part of the budget.
	keepGhostSpan = 0.75
	// keepEdge is how many bytes of drops, as a part of the budget, count as a
	// segment's edge: what it would still hold if it were that much larger.
	keepEdge = 0.02
)

// keepFrom names the segment an entry was dropped from.
type keepFrom uint8

const (
	keepFromNone keepFrom = iota
	keepFromYoung
	keepFromMain
)

// keepGhosts remembers keys dropped from each segment, in the order of their
// dropping. Its clock is the bytes dropped from that segment.
type keepGhosts struct {
	marks map[uint64]keepMark
	lanes [3]keepLane // by keepFrom
	most  int         // keys a lane remembers at most
	edge  int64
}

// keepLane is one segment's part: its clock, how far it remembers, its keys.
type keepLane struct {
	dropped int64
	span    int64
	queue   []keepMark
	head    int
}

// keepMark is one dropped key. A queue's mark counts only while the map holds
// the same: a key may return, and be dropped again.
type keepMark struct {
	hash uint64
	at   int64
	from keepFrom
}

func (g *keepGhosts) init(budget int64, most int) {
	g.marks = make(map[uint64]keepMark)
	g.most = most
	g.edge = int64(keepEdge * float64(budget))
	g.lanes[keepFromYoung].span = int64(keepGhostSpan * float64(budget))
	g.lanes[keepFromMain].span = g.edge
}

// put remembers a key dropped from a segment and forgets those too old.
func (g *keepGhosts) put(key string, cost int64, from keepFrom) {
	hash, _ := keepHash(key)
	l := &g.lanes[from]
	l.dropped += cost
	m := keepMark{hash: hash, at: l.dropped, from: from}
	g.marks[hash] = m
	l.queue = append(l.queue, m)
	for l.head < len(l.queue) && (l.dropped-l.queue[l.head].at > l.span || len(l.queue)-l.head > g.most) {
		if old := l.queue[l.head]; g.marks[old.hash] == old {
			delete(g.marks, old.hash)
		}
		l.head++
	}
	if l.head > 64 && l.head > len(l.queue)/2 {
		l.queue = l.queue[:copy(l.queue, l.queue[l.head:])]
		l.head = 0
	}
}

// take forgets key and returns the segment it was dropped from, and whether
// that segment would still hold it if it were larger by an edge.
func (g *keepGhosts) take(key string) (from keepFrom, edge bool) {
	hash, _ := keepHash(key)
	m, ok := g.marks[hash]
	if !ok {
		return keepFromNone, false
	}
	delete(g.marks, hash)
	return m.from, g.lanes[m.from].dropped-m.at <= g.edge
}

const (
	keepShareMin   = 0.01
	keepShareMax   = 0.80
	keepShareStart = 0.10
	keepShareStep  = 1.25
	// keepShareLeast and keepShareMost bound how many returns one decision
	// looks at.
	keepShareLeast = 32
	keepShareMost  = 1024
)

// keepShare is young's share of the budget and the climber that sets it.
//
// It climbs the hit ratio by a measured slope. A key that comes back just after
// it was dropped would have been a hit in a slightly larger segment, so the
// returns to each segment's edge say what a byte more would earn there. Trying a
// share out and comparing windows of the hit ratio says the same with far more
// noise: over 50,000 requests chance alone moves the ratio by .002, as much as
// the share does between 2 and 10 %. Half of a return's weight goes by bytes, so that
// the byte hit ratio counts too. Measured: zipf ends at 1 %; bursts (two to
// four requests, then none) end near 70 % and score .559, S3-FIFO .455.
type keepShare struct {
	now         float64
	young, main float64
	seen        int
}

func (s *keepShare) init() { s.now = keepShareStart }

// learn counts a key that came back to the edge of a segment.
func (s *keepShare) learn(from keepFrom, cost int64, mean float64) {
	w := (1 + float64(cost)/mean) / 2
	if from == keepFromYoung {
		s.young += w
	} else {
		s.main += w
	}
	if s.seen++; s.seen < keepShareLeast {
		return
	}
	gain, doubt := s.young-s.main, 2*math.Sqrt(s.young+s.main)
	switch {
	case gain > doubt:
		s.now = min(s.now*keepShareStep, keepShareMax)
	case gain < -doubt:
		s.now = max(s.now/keepShareStep, keepShareMin)
	case s.seen < keepShareMost:
		return
	}
	s.young, s.main, s.seen = 0, 0, 0
}
