package edgetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// patience is how long a command waits in virtual time for an answer that
// does not come, so that a hang is a line in the output and not a deadlock.
const patience = time.Hour

// exchange is one connection of a client: what it asked and what came back.
type exchange struct {
	q           question
	conn        net.Conn
	in          *bufio.Reader
	began       time.Time
	mayContinue chan struct{} // closed by a 100 or any final answer
	over        chan struct{} // closed when all answers asked for are read
	gone        chan struct{} // closed when the connection has ended
	stall       int           // body bytes to read before waiting for goOn; negative: no wait
	mayGoOn     chan struct{} // closed by goOn
	goOn        func()
	proceed     func()

	mu      sync.Mutex
	answers []*answer // guarded by mu, as are the answers themselves
	seen    cursor    // what read has printed; owned by the test's goroutine
}

// answer is one final response with the interim ones before it.
type answer struct {
	interims []head
	head     *head // nil until it has come
	body     []piece
	trailers []field
	ended    bool
	broken   string // why the answer is not a whole one; "" if it is
	surplus  int    // bytes after its end
}

// head is a status line with its fields, and when it came.
type head struct {
	at     time.Time
	status int
	fields []field
}

// piece is body bytes that came in one moment.
type piece struct {
	at   time.Time
	data []byte
}

func newExchange(conn net.Conn, q question, stall int) *exchange {
	x := &exchange{
		q: q, conn: conn, in: bufio.NewReader(conn), began: time.Now(), stall: stall,
		mayContinue: make(chan struct{}), mayGoOn: make(chan struct{}), over: make(chan struct{}), gone: make(chan struct{}),
	}
	x.goOn = sync.OnceFunc(func() { close(x.mayGoOn) })
	x.proceed = sync.OnceFunc(func() { close(x.mayContinue) })
	return x
}

func (x *exchange) write(b []byte) error {
	_, err := x.conn.Write(b)
	return err
}

// leave ends the connection from the client's side; the second time nothing.
func (x *exchange) leave() {
	x.goOn()
	x.conn.Close()
	x.proceed()
	<-x.gone
}

// wait lets the rest in and gives the answer once it has ended, or as it
// stands after an hour.
func (x *exchange) wait() *exchange {
	x.goOn()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-x.over:
	case <-limit.C:
	}
	return x
}

// receive reads up to n answers, then whatever else the server sends.
func (x *exchange) receive(n int) {
	defer close(x.gone)
	for i := 0; i < n; i++ {
		a := &answer{}
		if !x.receiveOne(a, i == 0) {
			break
		}
	}
	close(x.over)
	x.drain()
}

// receiveOne reads one answer; false when there is nothing to read after it.
// An end of the connection before a later answer's first byte is no answer.
func (x *exchange) receiveOne(a *answer, first bool) bool {
	if _, err := x.in.Peek(1); err != nil && !first {
		return false
	}
	x.mu.Lock()
	x.answers = append(x.answers, a)
	x.mu.Unlock()
	defer x.proceed()
	err := x.receiveHeads(a)
	if err == nil {
		err = x.receiveBody(a)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	a.ended = true
	if err != nil {
		a.broken = err.Error()
	}
	return err == nil
}

// drain counts what comes after the last answer.
func (x *exchange) drain() {
	buf := make([]byte, 4096)
	for {
		n, err := x.in.Read(buf)
		if n > 0 {
			x.mu.Lock()
			x.answers[len(x.answers)-1].surplus += n
			x.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// receiveHeads reads interim responses and the final head.
func (x *exchange) receiveHeads(a *answer) error {
	for {
		h, err := readHead(x.in)
		if err != nil {
			return err
		}
		x.mu.Lock()
		interim := h.status < 200 && h.status != 101
		if interim {
			a.interims = append(a.interims, *h)
		} else {
			a.head = h
		}
		x.mu.Unlock()
		if !interim || h.status == 100 {
			x.proceed()
		}
		if !interim {
			return nil
		}
	}
}

// readHead reads a status line and fields, strictly: each line ends in CR LF,
// no line is folded (RFC 9112, 2.2 and 5).
func readHead(in *bufio.Reader) (*head, error) {
	line, err := readLine(in)
	if err != nil {
		if err == io.EOF {
			err = errors.New("closed without an answer")
		}
		return nil, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return nil, fmt.Errorf("malformed status line %q", line)
	}
	h := &head{at: time.Now(), status: status}
	h.fields, err = readFields(in)
	return h, err
}

func readFields(in *bufio.Reader) ([]field, error) {
	var fields []field
	for {
		line, err := readLine(in)
		if err != nil {
			return fields, unexpected(err)
		}
		if line == "" {
			return fields, nil
		}
		f, err := parseField(line)
		if err != nil {
			return fields, fmt.Errorf("malformed field line %q", line)
		}
		fields = append(fields, f)
	}
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		if line != "" {
			err = unexpected(err)
		}
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return "", fmt.Errorf("line %q ends without CR", line)
	}
	return text, nil
}

// unexpected is io.EOF, or the pipe's word for it, where more was announced.
func unexpected(err error) error {
	if err == io.EOF || err == io.ErrClosedPipe {
		return io.ErrUnexpectedEOF
	}
	return err
}

// values are the values of all lines of a field, in order.
func values(fields []field, name string) []string {
	var all []string
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

// receiveBody reads the body as RFC 9112, 6.3 frames it.
func (x *exchange) receiveBody(a *answer) error {
	h := a.head
	lengths, codings := values(h.fields, "Content-Length"), values(h.fields, "Transfer-Encoding")
	switch {
	case h.status == 101:
		return x.receivePieces(a, -1)
	case len(lengths) > 1:
		return errors.New("two Content-Length fields")
	case len(codings) > 0 && len(lengths) > 0:
		return errors.New("Content-Length beside Transfer-Encoding")
	case x.q.method == "HEAD" || h.status == 204 || h.status == 304:
		return nil
	case len(codings) == 1 && codings[0] == "chunked":
		return x.receiveChunks(a)
	case len(codings) > 0:
		return fmt.Errorf("transfer coding %q", codings)
	case len(lengths) == 1:
		n, err := strconv.ParseInt(lengths[0], 10, 64)
		if err != nil {
			return fmt.Errorf("malformed Content-Length %q", lengths[0])
		}
		return x.receivePieces(a, n)
	default:
		return x.receivePieces(a, -1)
	}
}

// receivePieces reads n body bytes; -1 reads to the connection's end.
func (x *exchange) receivePieces(a *answer, n int64) error {
	buf := make([]byte, 32<<10)
	for n != 0 {
		want := int64(len(buf))
		if n > 0 {
			want = min(n, want)
		}
		if x.stall == 0 {
			<-x.mayGoOn
			x.stall = -1
		}
		if x.stall > 0 {
			want = min(want, int64(x.stall))
		}
		got, err := x.in.Read(buf[:want])
		if got > 0 {
			x.add(a, buf[:got])
			x.stall = max(-1, x.stall-got)
		}
		if n > 0 {
			n -= int64(got)
		}
		switch {
		case err != nil && n < 0 && (err == io.EOF || err == io.ErrClosedPipe):
			return nil
		case err != nil && n != 0:
			return unexpected(err)
		}
	}
	return nil
}

func (x *exchange) add(a *answer, b []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	if last := len(a.body) - 1; last >= 0 && a.body[last].at.Equal(now) {
		a.body[last].data = append(a.body[last].data, b...)
		return
	}
	a.body = append(a.body, piece{now, append([]byte(nil), b...)})
}

// receiveChunks reads a chunked body and its trailers.
func (x *exchange) receiveChunks(a *answer) error {
	for {
		line, err := readLine(x.in)
		if err != nil {
			return unexpected(err)
		}
		n, err := strconv.ParseInt(line, 16, 64)
		if err != nil {
			return fmt.Errorf("malformed chunk size %q", line)
		}
		if n == 0 {
			break
		}
		if err := x.receivePieces(a, n); err != nil {
			return err
		}
		if end, err := readLine(x.in); err != nil || end != "" {
			return fmt.Errorf("chunk without its end: %q %w", end, unexpected(err))
		}
	}
	trailers, err := readFields(x.in)
	x.mu.Lock()
	a.trailers = trailers
	x.mu.Unlock()
	return err
}
