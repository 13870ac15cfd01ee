package wasm

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is a reading of the processor time of a kernel thread. Guest
// code stays on its thread unless a host call blocks, and then the next
// reading tells.
type threadTime struct {
	id int
	at time.Duration
}

func (t *threadTime) read() {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		*t = threadTime{}
		return
	}
	*t = threadTime{unix.Gettid(), time.Duration(ts.Nano())}
}

// since returns the time run since the reading; false when that was of
// another thread.
func (t *threadTime) since() (time.Duration, bool) {
	var now threadTime
	now.read()
	return now.at - t.at, now.id != 0 && now.id == t.id
}
