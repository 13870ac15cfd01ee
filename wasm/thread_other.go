//go:build !linux

package wasm

import "time"

// threadTime is not read on this system: elapsed time counts.
type threadTime struct{}

func (t *threadTime) read() {}

func (t *threadTime) since() (time.Duration, bool) { return 0, false }
