package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serverAndLoad returns the core that servers get and those that loads and the
// origin get. With one core alone they share it.
func serverAndLoad() (server, load []int, err error) {
	var have unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return nil, nil, fmt.Errorf("read the cores that may be used: %w", err)
	}
	for core := 0; core < 1024; core++ {
		if have.IsSet(core) {
			load = append(load, core)
		}
	}
	if len(load) == 0 {
		return nil, nil, errors.New("no core may be used")
	}
	server = load[:1]
	if len(load) > 1 {
		load = load[1:]
	}
	return server, load, nil
}

// startPinned starts cmd on these cores, in a process group of its own, so that
// an interrupt at the terminal reaches this program alone and what cmd starts
// can be ended with it.
func startPinned(cmd *exec.Cmd, cores []int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, and its affinity, end here
		var set unix.CPUSet
		for _, core := range cores {
			set.Set(core)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			done <- fmt.Errorf("pin to cores %v: %w", cores, err)
			return
		}
		done <- cmd.Start() // the process inherits what its thread has
	}()
	return <-done
}

// endGroup kills a process that startPinned started, and what it started.
func endGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

// tree returns pid and its descendants.
func tree(pid int) []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		id, _ := strconv.Atoi(strings.Split(file, "/")[2])
		// The name is in brackets and may hold anything; state and parent follow.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(string(fields[1]))
		children[parent] = append(children[parent], id)
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids
}

// processorTime returns what pid and its descendants have used, user and system,
// by the kernel's own clock of each process (nanoseconds, where /proc has
// hundredths of a second).
func processorTime(pid int) (time.Duration, error) {
	total := time.Duration(0)
	for i, id := range tree(pid) {
		var ts unix.Timespec
		// clock_getcpuclockid(3): the complement of the process number, and 2.
		err := unix.ClockGettime(int32(^id<<3|2), &ts)
		if err != nil && i == 0 {
			return 0, fmt.Errorf("processor time of process %d: %w", id, err)
		}
		if err == nil {
			total += time.Duration(ts.Nano())
		}
	}
	return total, nil
}

// residentBytes returns the memory that pid and its descendants hold, pages that
// they share counted once (proportional set size).
func residentBytes(pid int) (int64, error) {
	total := int64(0)
	for i, id := range tree(pid) {
		kib, err := procFigure(fmt.Sprintf("/proc/%d/smaps_rollup", id), "Pss:")
		if err != nil {
			kib, err = procFigure(fmt.Sprintf("/proc/%d/status", id), "VmRSS:")
		}
		if err != nil && i == 0 {
			return 0, err
		}
		total += kib << 10
	}
	return total, nil
}

// procFigure returns the first number of the line that begins with name.
func procFigure(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				return strconv.ParseInt(fields[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}

// descriptors returns how many files and sockets pid has open.
func descriptors(pid int) (int, error) {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(names), err
}

// raiseDescriptors allows this program, and what it starts, 65,536 files and
// sockets, or as many as it may. By syscall and not x/sys: the former also tells
// os/exec not to give the processes the limit from before.
func raiseDescriptors() {
	const want = 1 << 16
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	more := syscall.Rlimit{Cur: max(limit.Cur, want), Max: max(limit.Max, want)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil { // takes a right that few have
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Max, Max: limit.Max})
	}
}

// maxDescriptors returns how many files and sockets a process may have.
func maxDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

// sleepUntil waits for t to within some 60 µs. Go's timers may be a millisecond
// late on an idle processor, which would show in every latency.
func sleepUntil(t time.Time) {
	for {
		left := time.Until(t)
		if left <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(min(left, 50*time.Millisecond)))
		_ = unix.Nanosleep(&ts, nil)
	}
}

// kernel returns the name and release of the system.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	// The part before the first hyphen is the version; the rest names a build.
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return "Linux " + release
}
