package listen

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// show shows frames one frame without flags.
func (f *frames) show(kind byte, length int) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(length)<<8|uint32(kind))
	return f.see(append(append(head, 0, 0, 0, 0, 1), make([]byte, length)...), 1<<40)
}

// Resets are bought by requests that are not reset, and by time.
func TestResetsAreBought(t *testing.T) {
	for _, c := range []struct {
		name          string
		opens, resets int           // of one round, in this order
		rest          time.Duration // behind each round
		rounds        int
		ends          int           // the round that ends it; 0: none does
		paused        time.Duration // waited in all
	}{
		{"each at once", 1, 1, 0, 5000, 400, 337 * time.Millisecond},
		{"each, in sets of ten", 10, 10, 0, 500, 40, 339 * time.Millisecond},
		{"resets of nothing", 0, 1, 0, 5000, 201, 169 * time.Millisecond},
		{"half of them, for ever", 2, 1, 0, 5000, 0, 0},
		{"a page is left: all that may be open", 128, 128, 0, 1, 0, 96 * time.Millisecond},
		{"a page is left, and the next at once", 128, 128, 0, 2, 0, 224 * time.Millisecond},
		{"pages are left, again and again", 128, 128, 1500 * time.Millisecond, 100, 0, 100 * 96 * time.Millisecond},
		{"thirty images are given up each second", 30, 30, time.Second, 1000, 0, 0},
		{"a hundred resets a second", 1, 1, 10 * time.Millisecond, 5000, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &frames{}
				var paused time.Duration
				ended := 0
				for round := 1; round <= c.rounds && ended == 0; round++ {
					var err error
					for range c.opens {
						err = errors.Join(err, f.show(frameHeaders, 40))
					}
					for range c.resets {
						err = errors.Join(err, f.show(frameReset, 4))
						paused += f.pause()
					}
					if err != nil {
						ended = round
					}
					time.Sleep(c.rest)
				}
				if ended != c.ends || paused != c.paused {
					t.Errorf("ended in round %d after pauses of %s, want %d and %s", ended, paused, c.ends, c.paused)
				}
			})
		})
	}
}

// The allowance of other frames comes back with time, from the first one on.
func TestFramesAreEarned(t *testing.T) {
	for _, c := range []struct {
		name string
		rest time.Duration
		ends int
	}{
		{"at once", 0, 1001},
		{"a hundred a second", 10 * time.Millisecond, 0},
		{"two hundred a second", 5 * time.Millisecond, 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &frames{}
				ended := 0
				for i := 1; i <= 5000 && ended == 0; i++ {
					if f.show(framePing, 8) != nil {
						ended = i
					}
					time.Sleep(c.rest)
				}
				if ended != c.ends {
					t.Errorf("ended by PING %d, want %d (0 is by none)", ended, c.ends)
				}
			})
		})
	}
}

func TestTurns(t *testing.T) {
	begin := time.Unix(1000, 0)
	q := &turns{}
	for _, c := range []struct {
		name string
		at   time.Duration
		want time.Duration // below zero: refused
	}{
		{"the first", 0, 0},
		{"at once", 0, 1},
		{"and again", 0, 2},
		{"later", 2, 1},
		{"after a rest", 10, 0},
		{"a rest saves nothing up", 10, 1},
		{"a third", 10, 2},
		{"a fourth", 10, 3},
		{"more than may wait", 10, -1},
		{"a little later", 11, 3},
	} {
		wait, ok := q.take(begin.Add(c.at), 1, 3)
		if !ok {
			wait = -1
		}
		if wait != c.want {
			t.Errorf("%s, at %d: got %d, want %d", c.name, c.at, wait, c.want)
		}
	}
}
