package main

import (
	"container/heap"
	"container/list"
)

// A ratio is the share of requests, and of bytes, that a cache answers itself.
type ratio struct {
	Requests, Bytes float64
}

// tally makes a ratio of what was asked and hit.
type tally struct {
	asked, hit, askedBytes, hitBytes int64
}

func (t *tally) add(size int64, hit bool) {
	t.asked++
	t.askedBytes += size
	if hit {
		t.hit++
		t.hitBytes += size
	}
}

func (t *tally) ratio() ratio {
	return ratio{float64(t.hit) / float64(max(t.asked, 1)), float64(t.hitBytes) / float64(max(t.askedBytes, 1))}
}

// The simulations count requests from number `from` on; those before fill the
// cache. They charge body bytes alone, which flatters them a little: a real
// cache keeps headers, keys and tables within its budget.

// simulateLRU keeps what was used last.
func simulateLRU(trace []int, from int, capacity int64) ratio {
	var t tally
	order, at := list.New(), make(map[int]*list.Element)
	used := int64(0)
	for i, id := range trace {
		size := int64(objectSize(id))
		e, hit := at[id]
		if i >= from {
			t.add(size, hit)
		}
		if hit {
			order.MoveToFront(e)
			continue
		}
		at[id] = order.PushFront(id)
		for used += size; used > capacity; {
			last := order.Back()
			old := order.Remove(last).(int)
			delete(at, old)
			used -= int64(objectSize(old))
		}
	}
	return t.ratio()
}

// s3entry is an object in one of S3-FIFO's queues.
type s3entry struct {
	id, uses int
	size     int64
	main     bool
}

// s3fifo is the algorithm of "FIFO queues are all you need for cache eviction"
// (SOSP 2023): a small queue with a tenth of the bytes, a main one, and a ghost
// queue of names.
type s3fifo struct {
	capacity, smallBytes, mainBytes int64
	small, main, ghost              *list.List
	entries                         map[int]*s3entry
	ghosts                          map[int]*list.Element
}

// simulateS3FIFO runs it over the trace.
func simulateS3FIFO(trace []int, from int, capacity int64) ratio {
	var t tally
	c := &s3fifo{capacity: capacity, small: list.New(), main: list.New(), ghost: list.New(),
		entries: make(map[int]*s3entry), ghosts: make(map[int]*list.Element)}
	for i, id := range trace {
		size := int64(objectSize(id))
		e, hit := c.entries[id]
		if i >= from {
			t.add(size, hit)
		}
		if hit {
			e.uses = min(e.uses+1, 3)
			continue
		}
		c.insert(&s3entry{id: id, size: size})
	}
	return t.ratio()
}

func (c *s3fifo) insert(e *s3entry) {
	for c.smallBytes+c.mainBytes+e.size > c.capacity && len(c.entries) > 0 {
		c.evict()
	}
	c.entries[e.id] = e
	if g, known := c.ghosts[e.id]; known {
		c.ghost.Remove(g)
		delete(c.ghosts, e.id)
		c.toMain(e)
		return
	}
	c.smallBytes += e.size
	c.small.PushFront(e)
}

func (c *s3fifo) toMain(e *s3entry) {
	e.main, e.uses = true, 0
	c.mainBytes += e.size
	c.main.PushFront(e)
}

// evict takes one step: an entry leaves a queue, for good or for another place.
func (c *s3fifo) evict() {
	if c.small.Len() > 0 && (c.smallBytes >= c.capacity/10 || c.main.Len() == 0) {
		e := c.small.Remove(c.small.Back()).(*s3entry)
		c.smallBytes -= e.size
		if e.uses > 1 {
			c.toMain(e)
			return
		}
		delete(c.entries, e.id)
		c.ghosts[e.id] = c.ghost.PushFront(e.id)
		for c.ghost.Len() > c.main.Len()+1 {
			delete(c.ghosts, c.ghost.Remove(c.ghost.Back()).(int))
		}
		return
	}
	back := c.main.Back()
	e := back.Value.(*s3entry)
	if e.uses > 0 {
		e.uses--
		c.main.MoveToFront(back)
		return
	}
	c.main.Remove(back)
	c.mainBytes -= e.size
	delete(c.entries, e.id)
}

// A future is an object and the number of the request that asks for it next.
type future struct {
	id, next int
}

type futures []future

func (f futures) Len() int           { return len(f) }
func (f futures) Less(i, j int) bool { return f[i].next > f[j].next }
func (f futures) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *futures) Push(x any)        { *f = append(*f, x.(future)) }
func (f *futures) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// simulateBelady removes what is asked for latest, which no cache can know. With
// bodies of unequal size that is a good bound, not the best possible.
func simulateBelady(trace []int, from int, capacity int64) ratio {
	next := make([]int, len(trace))
	seen := make(map[int]int)
	for i := len(trace) - 1; i >= 0; i-- {
		next[i] = len(trace) + 1
		if later, ok := seen[trace[i]]; ok {
			next[i] = later
		}
		seen[trace[i]] = i
	}
	var t tally
	var order futures // has outdated entries, which kept tells apart
	kept := make(map[int]int)
	used := int64(0)
	for i, id := range trace {
		size := int64(objectSize(id))
		_, hit := kept[id]
		if i >= from {
			t.add(size, hit)
		}
		if !hit {
			used += size
		}
		kept[id] = next[i]
		heap.Push(&order, future{id, next[i]})
		for used > capacity {
			f := heap.Pop(&order).(future)
			if at, ok := kept[f.id]; ok && at == f.next {
				delete(kept, f.id)
				used -= int64(objectSize(f.id))
			}
		}
	}
	return t.ratio()
}
