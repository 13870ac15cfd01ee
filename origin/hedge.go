package origin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"time"
)

// delays keep a quantile of recent times: counts by powers of 2^(1/4) from 0.1
// ms, all halved now and then so that old ones fade.
type delays struct {
	counts [delayBuckets]int32
	total  int32
}

const (
	delayBuckets = 96
	delayBase    = 100 * time.Microsecond
	delaySteps   = 4    // a doubling
	delayFade    = 2000 // samples
)

func (d *delays) add(v time.Duration) {
	i := 0
	if v > delayBase {
		i = min(int(delaySteps*math.Log2(float64(v)/float64(delayBase)))+1, delayBuckets-1)
	}
	d.counts[i]++
	if d.total++; d.total < delayFade {
		return
	}
	d.total = 0
	for i := range d.counts {
		d.counts[i] /= 2
		d.total += d.counts[i]
	}
}

// quantile returns a time that a share q of the recent ones did not exceed,
// rounded up by a fifth at most; false when too few are known.
func (d *delays) quantile(q float64) (time.Duration, bool) {
	if d.total < enough {
		return 0, false
	}
	left := int32(math.Ceil(q * float64(d.total)))
	for i, n := range d.counts {
		if left -= n; left <= 0 {
			return time.Duration(float64(delayBase) * math.Pow(2, float64(i)/delaySteps)), true
		}
	}
	return 0, false
}

// hedgeable reports whether a second server may be asked while the first has
// not answered.
func (x *exchange) hedgeable() bool {
	if x.stuck != nil && x.hint.Uncached {
		return false // another server does not know this client
	}
	return x.safe() && x.req.Method != http.MethodHead && len(x.p.servers) > 1
}

// hedgeDelay returns how long the first server is given.
func (p *Pool) hedgeDelay() (time.Duration, bool) {
	if d := p.cfg.Hedge.Delay; d > 0 {
		return d, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.delays.quantile(0.95)
	return max(d, p.cfg.Hedge.Least), ok
}

// racer is one of the requests of a hedge.
type racer struct {
	x      *exchange
	cancel context.CancelCauseFunc
	resp   *http.Response
	err    error
}

var errSlower = errors.New("another server was quicker")

// hedge is run, and a second run at another server if the first has brought
// nothing for a while. The first response wins; the loser is cancelled, and its
// goroutine ends with it. winner is the exchange that has the response.
func (x *exchange) hedge() (resp *http.Response, winner *exchange, err error) {
	delay, ok := x.p.hedgeDelay()
	if !ok {
		resp, err = x.run()
		return resp, x, err
	}
	ended := make(chan *racer, 2) // room for both: nobody waits for the loser
	race := func(x *exchange) *racer {
		r := &racer{x: x}
		var cancel context.CancelCauseFunc
		x.ctx, cancel = context.WithCancelCause(x.ctx)
		r.cancel = func(cause error) {
			cancel(cause)
			if x.unlink != nil {
				x.unlink()
			}
		}
		go func() {
			defer func() { ended <- r }()
			defer func() {
				if p := recover(); p != nil { // it has no caller here who could catch it
					r.resp, r.err = nil, x.fault(nil, stepRequest, false, refuse("panic: %v", p))
				}
			}()
			r.resp, r.err = x.run()
		}()
		return r
	}
	racers := []*racer{race(x)}
	t := time.NewTimer(delay)
	defer t.Stop()
	var failed *racer
	for {
		select {
		case r := <-ended:
			if r.err != nil && failed == nil && len(racers) == 2 {
				failed = r // the other one may still bring something
				continue
			}
			for _, o := range racers {
				if o != r {
					o.lose(failed == nil, ended)
				}
			}
			if r.err != nil {
				r.cancel(nil)
				return nil, nil, cmp.Or(failed, r).err
			}
			r.resp.Body = &racerBody{r.resp.Body, r.cancel}
			return r.resp, r.x, nil
		case <-t.C:
			if second := x.second(); second != nil {
				x.p.counts.hedges.Add(1)
				racers = append(racers, race(second))
			}
		}
	}
}

// lose cancels what another one has overtaken. running says that it has not
// ended: then its response, should it still come, is closed.
func (r *racer) lose(running bool, ended <-chan *racer) {
	r.cancel(errSlower)
	if !running {
		return
	}
	go func() {
		if r := <-ended; r.resp != nil {
			r.resp.Body.Close()
		}
	}()
}

// second returns an exchange for the same request at another server, if one is
// well and the budget allows it; else nil. It tells no trace: what is relayed is
// the first one's.
func (x *exchange) second() *exchange {
	x.p.mu.Lock()
	at := x.at
	x.p.unlock()
	if at == nil {
		return nil // it is queueing, or between two attempts
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := context.AfterFunc(x.req.Context(), func() { cancel(context.Cause(x.req.Context())) })
	y, err := x.p.newExchange(x.req.WithContext(ctx), x.hint)
	if err != nil {
		stop()
		cancel(nil)
		return nil
	}
	y.until, y.prefer, y.stuck, y.unlink = x.until, nil, x.stuck, stop
	y.retries = x.p.cfg.Retry.Attempts // it is a retry itself
	y.setMark(at, tried)
	if !x.p.wellUntried(y) || !x.p.takeBudget() {
		y.putScratch()
		stop()
		cancel(nil)
		return nil
	}
	return y
}

// racerBody frees the winner's context at its end.
type racerBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *racerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.cancel(nil)
	}
	return n, err
}

func (b *racerBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
