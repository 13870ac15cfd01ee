package purge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// small mounts a file system of 8 MiB, where this is allowed.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small file system: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}

// fill writes until the disk is full.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
}

// until calls f until it is nil, for as long as the log takes to come back.
func until(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		err := f()
		if err == nil {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v", err)
		}
	}
}

func TestFullDiskRefusesPurgesAndNothingElse(t *testing.T) {
	dir := filepath.Join(small(t), "log")
	l, rules, _ := open(t, dir)
	kept := mustPurge(t, l, tag("kept"), "")
	filler := filepath.Join(filepath.Dir(dir), "filler")
	fill(t, filler)
	var refused []string
	begin := time.Now()
	for i := range 50 {
		name := fmt.Sprint(i, rand.Text())
		before := rules.Epoch()
		r, err := l.Purge(context.Background(), tag(name, string(make10k())), "")
		if err == nil {
			kept = r // there was room for it yet
			continue
		}
		if rules.Epoch() != before {
			t.Errorf("refused with %v, and applied", err)
		}
		refused = append(refused, name)
	}
	if len(refused) == 0 {
		t.Fatal("nothing was refused")
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("refusing took %v: the server's silence was waited for", took)
	}
	if l.Healthy() == nil {
		t.Error("healthy on a full disk")
	}
	if got, _ := rules.Judge(0, subject(t, "http://a.example/", "kept")); got != Gone {
		t.Errorf("what was purged before: %v, want Gone", got)
	}
	remove(t, filler)
	until(t, func() error {
		_, err := l.Purge(context.Background(), tag("later"), "")
		return err
	})
	until(t, l.Healthy)
	l.Close()
	_, rules, _ = open(t, dir)
	for _, name := range []string{"kept", "later"} {
		if got, _ := rules.Judge(kept.Epoch-60, subject(t, "http://a.example/", name)); got != Gone {
			t.Errorf("%s: %v after a restart, want Gone", name, got)
		}
	}
}

func make10k() []byte {
	b := make([]byte, 1000)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func TestFolderThatCannotBeUsedIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		l, err := Open(context.Background(), Options{Dir: dir, Rules: NewRules(0), Normal: plain})
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", dir)
		}
	}
}

func TestReadOnlyFolderIsAnErrorAndKeepsTheLog(t *testing.T) {
	dir := small(t)
	l, _, _ := open(t, dir)
	r := mustPurge(t, l, tag("x"), "")
	l.Close()
	mount := func(how string) {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,"+how, dir).CombinedOutput(); err != nil {
			t.Skipf("cannot remount: %v %s", err, out)
		}
	}
	mount("ro")
	l, err := Open(context.Background(), Options{Dir: dir, Rules: NewRules(0), Normal: plain})
	if err == nil {
		l.Close()
		t.Error("opened on a read-only file system")
	}
	mount("rw")
	_, rules, said := open(t, dir)
	if got, _ := rules.Judge(r.Epoch-1, subject(t, "http://a.example/", "x")); got != Gone {
		t.Errorf("after it can be written again: %v, want Gone", got)
	}
	if said.String() != "" {
		t.Errorf("said: %s", said)
	}
}

// The server is stopped under the log, as it stops itself for want of space.
func TestStoppedServerIsStartedAgain(t *testing.T) {
	l, rules, _ := open(t, t.TempDir())
	first := mustPurge(t, l, tag("x"), "")
	l.theBus().(*embedded).server.Shutdown()
	if l.Healthy() == nil {
		t.Error("healthy without a server")
	}
	until(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := l.Purge(ctx, tag("z"), "")
		return err
	})
	for name, want := range map[string]Verdict{"x": Gone, "z": Gone, "w": Valid} {
		if got, _ := rules.Judge(first.Epoch-1, subject(t, "http://a.example/", name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Where no purge comes, the log finds out by itself.
func TestIdleLogStartsItsServerAgain(t *testing.T) {
	l, _, _ := open(t, t.TempDir())
	mustPurge(t, l, tag("x"), "")
	until(t, func() error { // what the purge left to be done is done
		if len(l.dirty) > 0 {
			return errors.New("not saved yet")
		}
		b, err := readBook(l.o.Dir)
		if err == nil && b.Applied < 1 {
			err = errors.New("not saved yet")
		}
		return err
	})
	l.theBus().(*embedded).server.Shutdown()
	if l.Healthy() == nil {
		t.Error("healthy without a server")
	}
	until(t, l.Healthy)
}

func TestUnsavedStateIsTold(t *testing.T) {
	dir := t.TempDir()
	l, rules, _ := open(t, dir)
	// A folder in the way of the new file: no right stands in root's way.
	if err := os.Mkdir(filepath.Join(dir, stateName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Swept(rules.Epoch() + 1); err != nil {
		t.Logf("Swept at the epoch of the start: %v", err)
	}
	mustPurge(t, l, tag("x"), "")
	if err := l.Swept(rules.Epoch()); err == nil {
		t.Error("Swept says that it is durable")
	}
	if err := l.Swept(rules.Epoch()); err == nil {
		t.Error("Swept says so when it is called again")
	}
	if l.Healthy() == nil {
		t.Error("healthy without state")
	}
	remove(t, filepath.Join(dir, stateName+".new"))
	until(t, l.Healthy)
}

func TestDamagedCopiesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range asideKept + 5 {
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := setAside(dir, "x", time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "x.damaged-*"))
	if err != nil || len(left) != asideKept {
		t.Errorf("%d copies (%v), want %d", len(left), err, asideKept)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged file is still there: %v", err)
	}
}

// The server stops between taking a purge and passing it on.
func TestPurgeTakenByAStoppedServerIsApplied(t *testing.T) {
	l, rules, _ := open(t, t.TempDir())
	first := mustPurge(t, l, tag("x"), "")
	e := l.theBus().(*embedded)
	e.following.Stop()
	<-e.following.Closed()
	done := make(chan error, 1)
	go func() {
		_, err := l.Purge(context.Background(), tag("y"), "")
		done <- err
	}()
	until(t, func() error {
		s, err := e.state(context.Background())
		if err == nil && s.last < 2 {
			err = errors.New("not written yet")
		}
		return err
	})
	e.server.Shutdown()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, _ := rules.Judge(first.Epoch, subject(t, "http://a.example/", "y")); got != Gone {
		t.Errorf("%v, want Gone", got)
	}
}

func TestCloseEndsPurgesUnderWay(t *testing.T) {
	eachBus(t, func(t *testing.T, dir string) {
		l, _, _ := open(t, dir)
		done := make(chan error, 8)
		for range cap(done) {
			go func() {
				for {
					if _, err := l.Purge(context.Background(), tag("x"), ""); err != nil {
						done <- err
						return
					}
				}
			}()
		}
		until(t, func() error {
			if l.Position() < 20 {
				return errors.New("too few purges")
			}
			return nil
		})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for range cap(done) {
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
	})
}
