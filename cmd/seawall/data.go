package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errLocked is a data folder that another process holds.
var errLocked = errors.New("in use by another node")

// data is what a node keeps between runs. The zero value keeps nothing.
type data struct {
	path string
	seed [16]byte // keys the store's hash, so that nobody can craft collisions
	lock *os.File // nil when nothing is kept
}

// openData opens the folder of --data, created if need be, and locks it until
// Close. An empty path keeps nothing and has a seed for this run only.
func openData(path string) (*data, error) {
	d := &data{path: path}
	if path == "" {
		rand.Read(d.seed[:])
		return d, nil
	}
	if err := d.open(); err != nil {
		if d.lock != nil {
			d.lock.Close()
		}
		return nil, fmt.Errorf("data folder %s: %w (hint: give --data DIR a folder of its own, or --data \"\" to keep nothing)", path, err)
	}
	return d, nil
}

func (d *data) open() error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	var err error
	if d.lock, err = os.OpenFile(filepath.Join(d.path, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := lockFile(d.lock); err != nil {
		return err
	}
	return d.readSeed()
}

// readSeed reads the seed, or makes it on the first run.
func (d *data) readSeed() error {
	name := filepath.Join(d.path, "seed")
	kept, err := os.ReadFile(name)
	switch {
	case err == nil && len(kept) == len(d.seed):
		copy(d.seed[:], kept)
		return os.Chmod(name, 0o600)
	case err == nil:
		return fmt.Errorf("%s has %d bytes instead of %d: delete it, and a new one is made", name, len(kept), len(d.seed))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	rand.Read(d.seed[:])
	return writeWhole(name, d.seed[:])
}

// Close gives the folder back.
func (d *data) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close() // the lock goes with the file
}

// writeWhole writes a file, mode 0600, such that a crash leaves the old or the
// new one and never a part.
func writeWhole(name string, content []byte) error {
	dir := filepath.Dir(name)
	temp, err := os.CreateTemp(dir, filepath.Base(name)+".*") // has mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // of no effect once renamed
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

// defaultData is the folder of a node that was given none.
func defaultData() (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "seawall"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder to keep data in: %w (hint: --data DIR, or --data \"\" to keep nothing)", err)
	}
	return filepath.Join(home, ".local", "state", "seawall"), nil
}
