package purge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// child purges until it is killed, and prints each thing that it was told is
// done: what a client would know.
func child(dir string) int {
	rules := NewRules(0)
	l, err := Open(context.Background(), Options{Dir: dir, Rules: rules, Normal: plain})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for i := range 100_000 {
		switch rand.IntN(20) {
		case 0:
			fmt.Println("doubt", rules.Doubt(time.Now()))
		case 1:
			low := rules.Epoch() - uint64(rand.IntN(10))
			fmt.Println("sweeping", low)
			if err := l.Swept(low); err != nil {
				fmt.Println("error", err)
				return 1
			}
		default:
			tag := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, rand.Uint64())
			r, err := l.Purge(context.Background(), Request{Site: "s", Tags: []string{tag}}, "")
			if err != nil {
				fmt.Println("error", err)
				return 1
			}
			fmt.Println("purged", r.Epoch, tag)
		}
	}
	return 0
}

// promised is what children were told over all rounds.
type promised struct {
	purges map[string]uint64
	newest uint64 // epoch
	doubt  uint64
	swept  uint64
}

// run starts a child, kills it, and notes what it printed. It is killed a
// moment after some line, or a moment after its start, where lines is 0.
func (p *promised) run(t *testing.T, dir string, lines int, moment time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Skip("no path to the test binary:", err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "SEAWALL_PURGE_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("cannot start a process:", err)
	}
	kill := func() { _ = cmd.Process.Kill() }
	timer := time.AfterFunc(time.Minute, kill)
	if lines == 0 {
		timer.Reset(moment)
	}
	in := bufio.NewReader(out)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			break // a line that was cut was not told
		}
		p.note(t, strings.TrimSpace(line))
		if n == lines {
			timer.Reset(moment)
		}
	}
	timer.Stop()
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
}

func (p *promised) note(t *testing.T, line string) {
	t.Helper()
	var epoch uint64
	var tag string
	word, rest, _ := strings.Cut(line, " ")
	if word == "error" {
		t.Errorf("child: %s", rest)
		return
	}
	if _, err := fmt.Sscan(rest, &epoch); err != nil {
		t.Fatalf("child printed %q", line)
	}
	switch word {
	case "sweeping":
		p.swept = max(p.swept, epoch)
		return
	case "doubt":
		p.doubt = epoch
	case "purged":
		_, tag, _ = strings.Cut(rest, " ")
		p.purges[tag] = epoch
	}
	if epoch <= p.newest {
		t.Errorf("child: %s: the epoch is not later than %d", line, p.newest)
	}
	p.newest = epoch
}

// check opens the log as the next start would.
func (p *promised) check(t *testing.T, dir string) {
	t.Helper()
	rules := NewRules(0)
	l, err := Open(context.Background(), Options{Dir: dir, Rules: rules, Normal: plain})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if rules.Epoch() < p.newest {
		t.Errorf("epoch %d after the crash, %d was given before", rules.Epoch(), p.newest)
	}
	for tag, epoch := range p.purges {
		if epoch <= p.swept {
			delete(p.purges, tag) // its rule may have gone, and need not have
			continue
		}
		s := subject(t, "http://a.example/", tag)
		if got, _ := rules.Judge(epoch-1, s); got != Gone {
			t.Errorf("purge of %s at %d: %v after the crash, want Gone", tag, epoch, got)
		}
		if got, _ := rules.Judge(epoch, s); got == Gone {
			t.Errorf("purge of %s has a later epoch after the crash than %d", tag, epoch)
		}
	}
	if p.doubt > p.swept {
		if got, _ := rules.Judge(p.doubt-1, subject(t, "http://quiet.example/")); got != Doubtful {
			t.Errorf("doubt at %d: %v after the crash, want Doubtful", p.doubt, got)
		}
	}
	r, err := l.Purge(context.Background(), Request{Site: "s", Tags: []string{"parent"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Epoch <= p.newest {
		t.Errorf("epoch %d after the crash was given before (newest %d)", r.Epoch, p.newest)
	}
	p.newest = r.Epoch
}

func TestKilledNodeKeepsEveryAcknowledgedPurge(t *testing.T) {
	rounds := 10
	if os.Getenv("SEAWALL_LONG") == "1" {
		rounds = 200
	}
	dir := t.TempDir()
	p := &promised{purges: map[string]uint64{}}
	told := 0
	for i := range rounds {
		before := len(p.purges)
		if i%4 == 3 {
			p.run(t, dir, 0, rand.N(150*time.Millisecond))
		} else {
			p.run(t, dir, 1+rand.IntN(40), rand.N(3*time.Millisecond))
		}
		told += len(p.purges) - before
		p.check(t, dir)
		if t.Failed() {
			return
		}
	}
	if told == 0 {
		t.Error("no child was told of a purge")
	}
	t.Logf("%d purges acknowledged in %d rounds", told, rounds)
}
