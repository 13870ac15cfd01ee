package main

import (
	"errors"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// mayStartOn tells why processes cannot be given these cores, nil if they can.
func mayStartOn(cores ...int) error {
	var have unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return err
	}
	for _, core := range cores {
		if !have.IsSet(core) {
			return errors.New("there is one core only, or not the first two")
		}
	}
	return onThread(func() error { return take(cores[len(cores)-1], true) })
}

// startOn starts cmd on one core. One that is idle gets only what others there
// leave, and gives way at once.
func startOn(cmd *exec.Cmd, core int, idle bool) error {
	return onThread(func() error {
		if err := take(core, idle); err != nil {
			return err
		}
		return cmd.Start() // the process inherits what its thread has
	})
}

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that nothing else runs on it
		done <- f()
	}()
	return <-done
}

func take(core int, idle bool) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	if !idle {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -19) // against what else the machine does; a right that few have
		return nil
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}
