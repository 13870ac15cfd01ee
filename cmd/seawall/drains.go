package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// maxDrains bounds the file of drains, in bytes: what a configuration of the
// largest size can name.
const maxDrains = 8 << 20

// drains are the servers that were drained, as they outlive the node: a server
// that is being worked on must not get requests because the node was started
// anew. They are for the holder of node.changing.
type drains struct {
	path string                     // of the file; "" keeps nothing
	was  map[string]map[string]bool // when the node began: by pool and server, whether it was drained
	text []byte                     // of the file; nil is not there
}

// openDrains reads what d has kept. What cannot be read is said, and counts for
// nothing.
func openDrains(d *data, log *slog.Logger) *drains {
	if d.path == "" {
		return &drains{}
	}
	k := &drains{path: filepath.Join(d.path, "drains.json")}
	if err := k.read(); err != nil {
		k.was = nil
		log.Error("which origin servers were drained cannot be read, so none is", "file", k.path, "error", err)
	}
	return k
}

func (k *drains) read() error {
	file, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if k.text, err = readBounded(file, maxDrains); err != nil {
		return err
	}
	if err := json.Unmarshal(k.text, &k.was); err != nil {
		return fmt.Errorf("not a record of drains: %w", err)
	}
	return nil
}

// drained reports whether a server of this pool was drained when the node
// began; of a pool that is new, whether it was wherever it was.
func (k *drains) drained(pool, server string) bool {
	if on, had := k.was[pool][server]; had {
		return on
	}
	everywhere := false
	for _, servers := range k.was {
		on, had := servers[server]
		if had && !on {
			return false
		}
		everywhere = everywhere || had
	}
	return everywhere
}

// keep writes how the servers of these pools are, if any is drained or was.
func (k *drains) keep(pools map[string]*pool) error {
	if k.path == "" {
		return nil
	}
	is, some := make(map[string]map[string]bool), false
	for name, p := range pools {
		is[name] = make(map[string]bool)
		for _, s := range p.Stats().Servers {
			on := s.State == "draining"
			is[name][s.Name] = on
			some = some || on
		}
	}
	if !some {
		is = nil
		if k.text == nil {
			return nil
		}
	}
	text, err := json.Marshal(is)
	if err != nil || bytes.Equal(text, k.text) {
		return err
	}
	if err := writeWhole(k.path, text); err != nil {
		return err
	}
	k.text = text
	return nil
}

// keepDrains is keep for the pools of the moment. What cannot be kept is in
// force all the same, and said.
func (n *node) keepDrains() {
	if err := n.drains.keep(n.current.Load().pools); err != nil {
		n.log.Error("which origin servers are drained cannot be kept: a restart would forget it", "error", err)
	}
}
