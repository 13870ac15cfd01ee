package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is one that this program started and will end.
type process struct {
	name  string
	pid   int
	cmd   *exec.Cmd
	in    io.WriteCloser // closed to end it, for those that read it
	log   string         // the file that has what it said
	ended chan struct{}  // closed when it did
	err   error          // how, once ended is closed
	once  sync.Once
}

// startProcess starts argv on cores, its words in a file of dir. env is added to
// this program's. A non-nil out gets its standard output.
func startProcess(name, dir string, cores []int, env []string, out io.Writer, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the process has its own
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if out != nil {
		p.cmd.Stdout = out
	}
	// What it started may hold its output open; that must not hold us.
	p.cmd.WaitDelay = time.Second
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := startPinned(p.cmd, cores); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process, politely first, and returns when it has ended.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.in.Close()
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			endGroup(p.pid)
			<-p.ended
		}
		endGroup(p.pid) // what it left behind in its group
	})
}

// said returns the last lines that the process wrote.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// wait returns when the process ended, with its error.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s: %w\n%s", p.name, p.err, p.said())
		}
		return nil
	case <-ctx.Done():
		p.stop()
		return ctx.Err()
	}
}

// until calls ready every few milliseconds until it returns nil. It gives up when
// the process ended, ctx did, or after 20 seconds.
func (p *process) until(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s ended (%v):\n%s", p.name, p.err, p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, errors.Join(err, ctx.Err()), p.said())
		}
	}
}

// self starts this program as one of its helper sub-commands.
func self(name, dir string, cores []int, out io.Writer, args ...string) (*process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{fmt.Sprintf("GOMAXPROCS=%d", max(len(cores), 1)), "SEAWALL_BENCH_HELPER=1"}
	return startProcess(name, dir, cores, env, out, append([]string{path}, args...)...)
}

// untilEOF cancels when in ends: a helper ends with the program that started it,
// however that one ended.
func untilEOF(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, cancel
}

// freePort returns a loopback port that was free a moment ago, for TCP and UDP.
func freePort() (int, error) {
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		l.Close()
		if err == nil {
			u.Close()
			return port, nil
		}
	}
	return 0, errors.New("no port is free for TCP and UDP")
}

// machine tells what a run was made on, without saying whose it is.
func machine() string {
	model := runtime.GOARCH
	if file, err := os.Open("/proc/cpuinfo"); err == nil {
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), %s, %s", runtime.NumCPU(), model, kernel(), runtime.Version())
}

// versionOf returns what a program says of its version: the first line that it
// prints, as far as the number; "" for none.
func versionOf(ctx context.Context, argv ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return untilNumber(line)
}

// untilNumber cuts a line behind its first word that has a number with a dot:
// dates, makers and addresses stand there.
func untilNumber(line string) string {
	var kept []string
	for word := range strings.FieldsSeq(line) {
		kept = append(kept, word)
		if i := strings.IndexByte(word, '.'); i > 0 && word[i-1] >= '0' && word[i-1] <= '9' {
			break
		}
	}
	line = strings.Join(kept, " ")
	if strings.Count(line, "(") > strings.Count(line, ")") {
		line += ")"
	}
	return line
}
