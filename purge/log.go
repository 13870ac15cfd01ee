package purge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Options say how a log is kept.
type Options struct {
	// Dir is the folder of the log; "" keeps it in memory.
	Dir string
	// Node is the name of this node, for receipts.
	Node string
	// Rules are what purges are applied to.
	Rules *Rules
	// Normal makes the normal form of the URLs that purges name.
	Normal Normal
	// Log takes what the operator should know; nil discards it.
	Log *slog.Logger
	// Applied is called after each purge that this run of the node applied for
	// the first time, in their order; not for those that Open replays. It
	// must not block. Nil is allowed.
	Applied func(Receipt, *Prepared)
}

// ErrClosed means that the log was closed before the purge was applied.
var ErrClosed = errors.New("purge: the log is closed")

// InvalidError means that a request was not accepted; nothing was done.
type InvalidError struct{ Fields []*FieldError }

func (e *InvalidError) Error() string {
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = f.Error()
	}
	return "purge: " + strings.Join(all, "; ")
}

// IdempotencyError means that the key was used for a different request within
// the last day; nothing was done.
type IdempotencyError struct {
	// ID is the purge that the key belongs to.
	ID string
}

func (e *IdempotencyError) Error() string {
	return "purge: the idempotency key was used for another request (purge " + e.ID + ")"
}

// Log keeps the purges of all nodes in one order, and applies them to this
// node's Rules in that order. All methods may be called at once.
type Log struct {
	o Options

	// Locks are taken in this order: connecting, Rules.mu, writing, mu.
	connecting sync.Mutex // one connection is made at a time
	writing    sync.Mutex // one writer of the book's file at a time

	mu      sync.Mutex // guards what follows
	bus     bus
	broken  error     // what went wrong with bus last
	retried time.Time // when a new bus was tried last
	book    book
	unsaved error // what went wrong with writing the book last
	history history
	// next is the place that comes next; those up to replayed keep their
	// epochs whatever else has been given; those before fresh were there at
	// start.
	next, replayed, fresh uint64
	waiting               map[string]chan Receipt // by id
	moved                 chan struct{}           // closed at each step of next
	closed                bool

	dirty chan struct{} // the book changed
	done  chan struct{} // closed by Close
	tasks sync.WaitGroup
}

// Open starts the log and replays it: when it returns, every purge that the
// stream holds is applied, from the sweep's low-water mark on. What is missing
// or damaged is logged, and puts everything older in doubt; it is no error. An
// error is a folder that cannot be used, or the end of ctx. The caller closes
// the log.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Rules == nil || o.Normal == nil {
		return nil, errors.New("purge: open the log: Rules and Normal must be given")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		o:       o,
		history: newHistory(),
		waiting: map[string]chan Receipt{},
		moved:   make(chan struct{}),
		dirty:   make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	if err := l.start(ctx); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) start(ctx context.Context) error {
	if l.o.Dir != "" {
		if err := l.readBook(); err != nil {
			return err
		}
	}
	l.connecting.Lock()
	last, err := l.connect(ctx, true)
	l.connecting.Unlock()
	if err != nil {
		return err
	}
	if err := l.reached(ctx, last); err != nil {
		return fmt.Errorf("purge: replay the log: %w", err)
	}
	if l.o.Dir != "" {
		l.o.Rules.setKeep(l.keepLocal)
		l.tasks.Go(l.tend)
	}
	return nil
}

// Purge validates r, makes it durable, and applies it: when it returns without
// error, nothing that r matches is served by this node any more. With an
// idempotency key that was used within the last day for the same request, it
// returns the first receipt and does nothing else.
//
// Errors: *InvalidError and *IdempotencyError, where nothing was done;
// ErrClosed; ctx's; what the stream says, as when the disk is full. After the
// latter three the purge may still be applied, now or at the next start: it can
// have been written before the error was known. Calling again with the same
// key is safe.
func (l *Log) Purge(ctx context.Context, r Request, idempotencyKey string) (Receipt, error) {
	rec := &record{Version: recordVersion, ID: strings.ToLower(rand.Text()), Node: l.o.Node}
	p, errs := Prepare(r, rec.remembering(l.o.Normal))
	if errs != nil {
		return Receipt{}, &InvalidError{errs}
	}
	rec.Request = p.request
	request, err := digestOf(p.request)
	if err != nil {
		return Receipt{}, err
	}
	message := rec.ID
	if idempotencyKey != "" {
		key := sha256.Sum256([]byte(idempotencyKey))
		rec.Key = hex.EncodeToString(key[:])
		message = "key." + rec.Key
		if receipt, ok, err := l.earlier(key, request, p.request); ok || err != nil {
			return receipt, err
		}
	}
	b, err := l.connected(ctx)
	if err != nil {
		return Receipt{}, err
	}
	applied := l.await(rec.ID)
	defer l.awaitNoMore(rec.ID)
	rec.At = time.Now().UTC()
	data, err := rec.encode()
	if err != nil {
		return Receipt{}, err
	}
	if len(data) > recordBytes {
		return Receipt{}, tooLong(&r, len(data))
	}
	seq, repeated, err := b.publish(ctx, message, data)
	if err != nil {
		return Receipt{}, l.failed(ctx, b, err)
	}
	if err := l.reached(ctx, seq); err != nil {
		return Receipt{}, fmt.Errorf("purge: accepted, not known to be applied: %w", err)
	}
	if repeated && rec.Key != "" {
		return l.first(*rec.key(), request, p.request)
	}
	select {
	case receipt := <-applied:
		return receipt, nil
	default:
		// Its place has passed without it: everything older is in doubt now.
		return Receipt{}, errors.New("purge: the log lost the purge after it took it")
	}
}

// earlier returns the receipt of a key that was used before.
func (l *Log) earlier(key, request digest, r Request) (Receipt, bool, error) {
	l.mu.Lock()
	u, ok := l.history.used(key, time.Now())
	l.mu.Unlock()
	if !ok {
		return Receipt{}, false, nil
	}
	if u.request != request {
		return Receipt{}, false, &IdempotencyError{u.receipt.ID}
	}
	receipt := u.receipt
	receipt.Request, receipt.Repeated = r, true
	return receipt, true, nil
}

// first returns the receipt of the message that took the key before us.
func (l *Log) first(key, request digest, r Request) (Receipt, error) {
	receipt, ok, err := l.earlier(key, request, r)
	if !ok && err == nil {
		err = errors.New("purge: the idempotency key was used, and its purge is not known any more")
	}
	return receipt, err
}

// reached waits until the place seq is applied. Where the bus has stopped
// meanwhile, it starts one again: the message is in the stream.
func (l *Log) reached(ctx context.Context, seq uint64) error {
	tick := time.NewTicker(retryDelay)
	defer tick.Stop()
	for {
		l.mu.Lock()
		next, moved := l.next, l.moved
		l.mu.Unlock()
		if next > seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return ErrClosed
		case <-tick.C:
			if _, err := l.connected(ctx); err != nil {
				return err
			}
		}
	}
}

func (l *Log) await(id string) <-chan Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan Receipt, 1)
	l.waiting[id] = c
	return c
}

func (l *Log) awaitNoMore(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

// Recent returns up to n receipts, newest first; some 1,000 are known.
// AppliedAt of those that are older than this run is when it replayed them.
func (l *Log) Recent(n int) []Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.history.recent(n)
}

// Get returns one of the recent receipts.
func (l *Log) Get(id string) (Receipt, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.history.byID[id]
	return r, ok
}

// Position returns the place in the stream up to which this node has applied
// it.
func (l *Log) Position() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.next, 1) - 1
}

// Healthy returns why purges can be neither accepted nor kept at present, nil
// when all is well.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.broken == nil && (l.bus == nil || !l.bus.alive()) {
		return errors.New("purge: the log's server has stopped")
	}
	return errors.Join(l.broken, l.unsaved)
}

// Close ends the log and waits for all that it started. Purges under way
// return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.done)
	l.tasks.Wait()
	l.connecting.Lock()
	b := l.theBus()
	if b != nil {
		b.close()
	}
	l.connecting.Unlock()
	if l.o.Dir == "" || b == nil {
		return nil
	}
	l.o.Rules.setKeep(nil)
	return l.save()
}

func (l *Log) theBus() bus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bus
}
