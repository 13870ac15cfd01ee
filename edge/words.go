package edge

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// linesASecond bounds what requests can make the node say: a failing origin or
// a hostile client must not fill the log, nor slow others down by it.
const linesASecond = 20

// words says what requests give rise to, up to linesASecond.
type words struct {
	log    *slog.Logger
	second atomic.Int64
	lines  atomic.Int64 // said in that second
	silent atomic.Int64 // left out since the last line
}

func (q *words) say(level slog.Level, text string, args ...any) {
	if !q.log.Enabled(context.Background(), level) {
		return
	}
	now := time.Now().Unix()
	if last := q.second.Load(); last != now && q.second.CompareAndSwap(last, now) {
		q.lines.Store(0)
	}
	if q.lines.Add(1) > linesASecond {
		q.silent.Add(1)
		return
	}
	if n := q.silent.Swap(0); n > 0 {
		args = append(args, "lines_left_out", n)
	}
	q.log.Log(context.Background(), level, text, args...)
}
