package purge

import (
	"context"
	"sync"
	"time"
)

// bus is the stream that carries purges in one order to every node: in this
// process, or in a cluster.
type bus interface {
	// state returns what the stream holds.
	state(ctx context.Context) (busState, error)
	// publish appends data and returns its place once it is durable. An id
	// that the stream saw a short while ago appends nothing: seq is then the
	// first one's, and repeated true.
	publish(ctx context.Context, id string, data []byte) (seq uint64, repeated bool, err error)
	// follow calls apply, in order and from one goroutine, with each message
	// from the place on that is there or still comes.
	follow(from uint64, apply func(seq uint64, data []byte)) error
	// trim drops the messages before a place.
	trim(ctx context.Context, before uint64) error
	// alive is false when only a new bus can help.
	alive() bool
	// close ends all, and returns when apply will not be called any more.
	close()
}

// busState is what a stream holds.
type busState struct {
	// incarnation is another for each stream ever made.
	incarnation string
	// first and last are the places of its messages; first is last+1 where
	// there is none.
	first, last uint64
	// lost is true when the stream knows that it lost messages.
	lost bool
}

// repeatedWithin is how long a bus knows an id again. It is for calls at the
// same time; for those after another, the log's own memory is.
const repeatedWithin = 2 * time.Minute

// place is where a message is, and since when.
type place struct {
	seq uint64
	at  time.Time
}

// memory is the bus of a node that keeps nothing: a list in this process.
type memory struct {
	mu     sync.Mutex
	cond   sync.Cond
	first  uint64
	kept   [][]byte
	ids    map[string]place
	closed bool
	done   sync.WaitGroup
}

func newMemory() *memory {
	m := &memory{first: 1, ids: map[string]place{}}
	m.cond.L = &m.mu
	return m
}

func (m *memory) next() uint64 { return m.first + uint64(len(m.kept)) }

func (m *memory) state(context.Context) (busState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return busState{incarnation: "memory", first: m.first, last: m.next() - 1}, nil
}

func (m *memory) publish(_ context.Context, id string, data []byte) (uint64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, false, ErrClosed
	}
	now := time.Now()
	if p, ok := m.ids[id]; ok && now.Sub(p.at) < repeatedWithin {
		return p.seq, true, nil
	}
	seq := m.next()
	m.ids[id] = place{seq, now}
	m.kept = append(m.kept, data)
	m.cond.Broadcast()
	return seq, false, nil
}

func (m *memory) follow(from uint64, apply func(uint64, []byte)) error {
	m.done.Go(func() {
		for {
			m.mu.Lock()
			for from >= m.next() && !m.closed {
				m.cond.Wait()
			}
			if m.closed {
				m.mu.Unlock()
				return
			}
			from = max(from, m.first)
			data := m.kept[from-m.first]
			m.mu.Unlock()
			apply(from, data)
			from++
			m.applied(from)
		}
	})
	return nil
}

// memoryKept is how many messages are known by their ids.
const memoryKept = 1000

// applied lets go of what nobody will ask for: there is one follower, and no
// replay.
func (m *memory) applied(before uint64) {
	m.mu.Lock()
	m.kept[before-1-m.first] = nil
	over := len(m.kept) >= 2*memoryKept && before > m.first+memoryKept
	m.mu.Unlock()
	if over {
		_ = m.trim(context.Background(), before-memoryKept)
	}
}

func (m *memory) trim(_ context.Context, before uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := min(before, m.next())
	if n <= m.first {
		return nil
	}
	m.kept = append([][]byte(nil), m.kept[n-m.first:]...)
	m.first = n
	for id, p := range m.ids {
		if p.seq < n {
			delete(m.ids, id)
		}
	}
	return nil
}

func (m *memory) alive() bool { return true }

func (m *memory) close() {
	m.mu.Lock()
	m.closed = true
	m.cond.Broadcast()
	m.mu.Unlock()
	m.done.Wait()
}
