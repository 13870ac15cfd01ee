//go:build wasip1

package main

// agents finds many texts in one pass over another (Aho and Corasick): what a
// request costs does not grow with the rules.
type agents struct {
	next map[uint32]uint32 // node and byte to node; node 0 is the root
	fail []uint32          // the node of the longest end of a node's text that is one, too
	seen []uint32          // the turn in which a node was passed, or the end of one
	turn uint32
}

// add takes one more text, which is not empty, and returns its node. No search
// may have begun.
func (a *agents) add(text string) uint32 {
	if a.next == nil {
		a.next, a.fail, a.seen = map[uint32]uint32{}, []uint32{0}, []uint32{0}
	}
	node := uint32(0)
	for i := 0; i < len(text); i++ {
		at := node<<8 | uint32(text[i])
		to, ok := a.next[at]
		if !ok {
			to = uint32(len(a.fail))
			a.next[at] = to
			a.fail, a.seen = append(a.fail, 0), append(a.seen, 0)
		}
		node = to
	}
	return node
}

// link makes the texts ready to be searched for. Nodes are visited by the
// length of their text, since each links to a shorter one.
func (a *agents) link() {
	children := make([][]uint32, len(a.fail)) // node<<8 | byte, of each node
	for at := range a.next {
		children[at>>8] = append(children[at>>8], at)
	}
	queue := []uint32{0}
	for len(queue) > 0 && len(a.fail) > 0 {
		node := queue[0]
		queue = queue[1:]
		for _, at := range children[node] {
			to := a.next[at]
			if node != 0 {
				a.fail[to] = a.step(a.fail[node], byte(at))
			}
			queue = append(queue, to)
		}
	}
}

// step is the node after one more byte.
func (a *agents) step(node uint32, b byte) uint32 {
	for {
		if to, ok := a.next[node<<8|uint32(b)]; ok {
			return to
		}
		if node == 0 {
			return 0
		}
		node = a.fail[node]
	}
}

// search looks through text for all of them.
func (a *agents) search(text string) {
	if len(a.fail) == 0 {
		return
	}
	if a.turn++; a.turn == 0 {
		clear(a.seen)
		a.turn = 1
	}
	node := uint32(0)
	for i := 0; i < len(text); i++ {
		node = a.step(node, text[i])
		for n := node; n != 0 && a.seen[n] != a.turn; n = a.fail[n] {
			a.seen[n] = a.turn
		}
	}
}

// found reports whether the last search met the text of a node.
func (a *agents) found(node uint32) bool { return a.seen[node] == a.turn }
