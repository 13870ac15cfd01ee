package purge

import (
	"slices"
	"time"
)

// What is remembered of past purges. Each bound is of one node; beyond it the
// oldest go first.
const (
	receiptsKept     = 1000
	receiptBytesKept = 16 << 20
	keysKept         = 100_000
	keyLifetime      = 24 * time.Hour
)

type digest = [32]byte

// history is what answers about past purges. The log's lock guards it.
type history struct {
	receipts []Receipt // in the log's order
	bytes    int
	byID     map[string]Receipt
	keys     map[digest]used
	order    []digest // keys, oldest first
}

// used is what an idempotency key was used for.
type used struct {
	request digest
	receipt Receipt // without the request
}

func newHistory() history {
	return history{byID: map[string]Receipt{}, keys: map[digest]used{}}
}

func sizeOf(r *Request) int {
	n := 256
	for _, list := range [][]string{r.URLs, r.Prefixes, r.Tags, r.Hosts} {
		for _, s := range list {
			n += len(s) + 16
		}
	}
	return n
}

// add remembers a purge; key is nil where it had none.
func (h *history) add(r Receipt, key *digest, request digest) {
	if _, known := h.byID[r.ID]; known {
		return
	}
	h.receipts = append(h.receipts, r)
	h.byID[r.ID] = r
	h.bytes += sizeOf(&r.Request)
	drop := 0
	for len(h.receipts)-drop > receiptsKept || h.bytes > receiptBytesKept && len(h.receipts)-drop > 1 {
		old := &h.receipts[drop]
		delete(h.byID, old.ID)
		h.bytes -= sizeOf(&old.Request)
		drop++
	}
	h.receipts = slices.Delete(h.receipts, 0, drop)
	if key == nil {
		return
	}
	h.expire(r.AcceptedAt) // first: a key used anew after its time is the newest
	if _, known := h.keys[*key]; !known {
		h.order = append(h.order, *key)
	}
	r.Request = Request{}
	h.keys[*key] = used{request, r}
	h.expire(r.AcceptedAt)
}

// expire drops the keys that are too old, or too many.
func (h *history) expire(now time.Time) {
	drop := 0
	for ; drop < len(h.order); drop++ {
		u := h.keys[h.order[drop]]
		if len(h.order)-drop <= keysKept && now.Sub(u.receipt.AcceptedAt) < keyLifetime {
			break
		}
		delete(h.keys, h.order[drop])
	}
	h.order = slices.Delete(h.order, 0, drop)
}

// used returns what a key stands for now.
func (h *history) used(key digest, now time.Time) (used, bool) {
	u, ok := h.keys[key]
	return u, ok && now.Sub(u.receipt.AcceptedAt) < keyLifetime
}

// recent returns up to n receipts, newest first.
func (h *history) recent(n int) []Receipt {
	n = max(0, min(n, len(h.receipts)))
	all := slices.Clone(h.receipts[len(h.receipts)-n:])
	slices.Reverse(all)
	return all
}

// oldest returns the first place that the history is made from, at most next.
func (h *history) oldest(next uint64) uint64 {
	if len(h.receipts) > 0 {
		next = min(next, h.receipts[0].Position)
	}
	if len(h.order) > 0 {
		next = min(next, h.keys[h.order[0]].receipt.Position)
	}
	return next
}
