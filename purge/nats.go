package purge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What the stream may take. A call's names are bounded by MaxCallBytes; its
// message has them several times, with escapes, and is bounded by itself.
const (
	streamName      = "PURGES"
	streamSubject   = "purges"
	streamFolder    = "stream"
	streamFiles     = streamFolder + "/jetstream/$G/streams/" + streamName
	streamBytes     = 256 << 20
	messageBytes    = 8 << 20
	streamPatience  = 10 * time.Second
	incarnationName = "seawall.incarnation"
)

// embedded is a NATS server in this process that nothing outside can reach,
// with one stream on disk.
type embedded struct {
	server    *server.Server
	conn      *nats.Conn
	js        jetstream.JetStream
	stream    jetstream.Stream
	log       *slog.Logger
	faults    *faults
	following jetstream.ConsumeContext
}

// openEmbedded starts the server over dir and finds the stream, or makes it.
func openEmbedded(ctx context.Context, dir string, log *slog.Logger) (_ *embedded, err error) {
	e := &embedded{log: log, faults: &faults{log: log, told: make(chan struct{})}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	_, err = os.Stat(filepath.Join(dir, streamFiles))
	there := err == nil
	e.server, err = server.NewServer(&server.Options{
		ServerName: "seawall",
		DontListen: true,
		NoSigs:     true,
		NoLog:      false,
		MaxPayload: messageBytes,
		JetStream:  true,
		StoreDir:   filepath.Join(dir, streamFolder),
		// The default writes every two minutes: what was acknowledged in
		// between is lost in a crash.
		SyncAlways:             true,
		JetStreamMaxMemory:     64 << 20,
		JetStreamMaxStore:      2 * streamBytes,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("purge: start the log: %w", err)
	}
	e.server.SetLoggerV2(e.faults, false, false, false)
	e.server.Start()
	if err := e.faults.first(); err != nil {
		return nil, fmt.Errorf("purge: start the log: %w", err)
	}
	if !e.server.ReadyForConnections(streamPatience) {
		return nil, errors.New("purge: start the log: the server does not become ready")
	}
	e.conn, err = nats.Connect("", nats.InProcessServer(e.server),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("purge: the connection to the log's server", "error", err)
		}))
	if err != nil {
		return nil, fmt.Errorf("purge: start the log: %w", err)
	}
	if e.js, err = jetstream.New(e.conn); err != nil {
		return nil, fmt.Errorf("purge: start the log: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	e.stream, err = e.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if there {
			// A new stream in the old one's folder would take over what is left.
			return nil, errors.New("purge: open the stream: the server cannot read what is in its folder")
		}
		e.stream, err = e.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:       streamName,
			Subjects:   []string{streamSubject},
			Storage:    jetstream.FileStorage,
			MaxBytes:   streamBytes,
			Discard:    jetstream.DiscardOld,
			Duplicates: repeatedWithin,
			Metadata:   map[string]string{incarnationName: rand.Text()},
		})
	}
	if err != nil {
		return nil, fmt.Errorf("purge: open the stream: %w", err)
	}
	e.faults.armed.Store(true)
	return e, nil
}

func (e *embedded) state(ctx context.Context) (busState, error) {
	info, err := e.stream.Info(ctx)
	if err != nil {
		return busState{}, fmt.Errorf("purge: read the stream: %w", err)
	}
	s := busState{
		incarnation: info.Config.Metadata[incarnationName],
		first:       info.State.FirstSeq,
		last:        info.State.LastSeq,
		lost:        info.State.Lost != nil && len(info.State.Lost.Msgs) > 0,
	}
	if info.State.Msgs == 0 {
		s.first = s.last + 1
	}
	return s, nil
}

func (e *embedded) publish(ctx context.Context, id string, data []byte) (uint64, bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		ack *jetstream.PubAck
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		ack, err := e.js.PublishMsg(ctx, &nats.Msg{Subject: streamSubject, Data: data}, jetstream.WithMsgID(id))
		answers <- answer{ack, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return 0, false, fmt.Errorf("purge: write to the log: %w", a.err)
		}
		return a.ack.Sequence, a.ack.Duplicate, nil
	case <-e.faults.told:
		// The server answers nothing to what it could not write.
		cancel()
		<-answers
		return 0, false, fmt.Errorf("purge: write to the log: %w", e.faults.first())
	}
}

func (e *embedded) follow(from uint64, apply func(uint64, []byte)) error {
	ctx, cancel := context.WithTimeout(context.Background(), streamPatience)
	defer cancel()
	consumer, err := e.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   max(from, 1),
	})
	if err != nil {
		return fmt.Errorf("purge: follow the stream: %w", err)
	}
	e.following, err = consumer.Consume(func(m jetstream.Msg) {
		if meta, err := m.Metadata(); err == nil {
			apply(meta.Sequence.Stream, m.Data())
		} else {
			e.log.Error("purge: a message of the stream has no place", "error", err)
		}
	}, jetstream.PullMaxBytes(4*messageBytes), jetstream.PullHeartbeat(time.Second),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			e.log.Warn("purge: following the stream", "error", err)
		}))
	if err != nil {
		return fmt.Errorf("purge: follow the stream: %w", err)
	}
	return nil
}

func (e *embedded) trim(ctx context.Context, before uint64) error {
	if err := e.stream.Purge(ctx, jetstream.WithPurgeSequence(before)); err != nil {
		return fmt.Errorf("purge: trim the stream: %w", err)
	}
	return nil
}

// alive is false after the server switched the stream off, as it does on a full
// disk, and after any other fault: only a new start mends those.
func (e *embedded) alive() bool {
	return e.faults.first() == nil && e.server.Running() && e.server.JetStreamEnabled()
}

func (e *embedded) close() {
	if e.following != nil {
		e.following.Stop()
		<-e.following.Closed()
	}
	if e.conn != nil {
		e.conn.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
}

// faults passes on what the server has to say (its notices are about starting
// and stopping), and keeps its first error: it has no other way of telling that
// it gave the stream up.
type faults struct {
	log   *slog.Logger
	armed atomic.Bool   // errors count; before, what could be mended was
	told  chan struct{} // closed at the first fault
	once  sync.Once
	fault error // set before told is closed
}

// first returns the first fault.
func (f *faults) first() error {
	select {
	case <-f.told:
		return f.fault
	default:
		return nil
	}
}

func (f *faults) set(text string) {
	f.once.Do(func() {
		f.fault = errors.New(text)
		close(f.told)
	})
}

func (f *faults) Noticef(format string, v ...any) { f.say(slog.LevelDebug, format, v) }
func (f *faults) Warnf(format string, v ...any)   { f.say(slog.LevelWarn, format, v) }
func (f *faults) Debugf(string, ...any)           {}
func (f *faults) Tracef(string, ...any)           {}

func (f *faults) Errorf(format string, v ...any) {
	text := f.say(slog.LevelError, format, v)
	if f.armed.Load() {
		f.set(text)
	}
}

func (f *faults) Fatalf(format string, v ...any) { f.set(f.say(slog.LevelError, format, v)) }

func (f *faults) say(level slog.Level, format string, v []any) string {
	text := fmt.Sprintf(format, v...)
	f.log.Log(context.Background(), level, "purge: the log's server: "+text)
	return text
}
