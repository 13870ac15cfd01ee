package origin

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// holdWait is how long an answer is held back for its body: then it is better
// to let the client have what has come.
const holdWait = time.Second

// holds reports whether resp is held back until its body has come.
func (x *exchange) holds(resp *http.Response) bool {
	return resp.ContentLength > 0 && resp.ContentLength <= int64(x.p.cfg.BufferSmall) && x.req.Method != http.MethodHead &&
		x.safe() && x.mayRepeat() && x.mayRetry() &&
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
}

// hold reads resp's body, so that another server can be asked if it breaks. The
// error is the body's.
func (x *exchange) hold(resp *http.Response) (*http.Response, error) {
	x.held.Store(true)
	defer x.held.Store(false)
	h := &ahead{src: resp.Body, b: make([]byte, resp.ContentLength), done: make(chan struct{})}
	h.more.L = &h.mu
	if b, ok := resp.Body.(*body); ok && int64(b.Buffered()) >= resp.ContentLength {
		h.fill() // all has come with the head: nothing waits
	} else {
		go h.fill()
		t := time.NewTimer(holdWait)
		defer t.Stop()
		select {
		case <-h.done:
		case <-t.C:
			resp.Body = h
			return resp, nil
		}
	}
	resp.Body.Close()
	if h.err != io.EOF {
		return nil, h.err
	}
	resp.Body = &whole{*bytes.NewReader(h.b[:h.have])}
	return resp, nil
}

// whole is a body that has come. Closing it changes nothing.
type whole struct{ bytes.Reader }

func (*whole) Close() error { return nil }

// Buffered returns how many bytes the next Reads give without waiting.
func (w *whole) Buffered() int { return w.Len() }

// ahead is a body that is read ahead of its reader, whole. The goroutine in fill
// ends with the body, or when it is closed.
type ahead struct {
	src  io.ReadCloser
	b    []byte
	done chan struct{} // closed when all has come, or an error

	mu     sync.Mutex // guards the fields below
	more   sync.Cond  // have or err changed
	have   int        // bytes of b that came
	err    error      // what came after them
	read   int        // bytes that the reader has
	closed bool
}

func (h *ahead) fill() {
	defer close(h.done)
	var beyond [1]byte
	for at := 0; ; {
		room := h.b[at:]
		if len(room) == 0 {
			room = beyond[:]
		}
		n, err := h.src.Read(room)
		if at == len(h.b) && n > 0 {
			n, err = 0, malformed("more than the declared length")
		}
		at += n
		h.mu.Lock()
		h.have, h.err = at, err
		h.more.Broadcast()
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read returns what has come, as it comes.
func (h *ahead) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.read == h.have && h.err == nil && !h.closed && len(p) > 0 {
		h.more.Wait()
	}
	switch {
	case h.closed:
		return 0, http.ErrBodyReadAfterClose
	case h.read < h.have:
		n := copy(p, h.b[h.read:h.have])
		h.read += n
		return n, nil
	}
	return 0, h.err
}

// Close ends the exchange.
func (h *ahead) Close() error {
	h.mu.Lock()
	h.closed = true
	h.more.Broadcast()
	h.mu.Unlock()
	return h.src.Close()
}
