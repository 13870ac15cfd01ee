package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A node offers no profiles, so that nobody can ask for them. The binary that is
// profiled has one source file more, laid over its main package by the go
// command: it serves net/http/pprof on a loopback port of this run. The hit path
// is the same code.

//go:embed node_profile.go.txt
var profileSource []byte

// buildProfiled builds the node with that file.
func buildProfiled(ctx context.Context, dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	source, overlay := filepath.Join(dir, "profile.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(source, profileSource, 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "cmd", "seawall", "bench_profile.go"): source,
	}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	return buildNode(ctx, dir, "-overlay", overlay)
}

// profileAll saves a CPU and an allocation profile of the node for each scenario.
func (r *runner) profileAll(ctx context.Context, chosen []scenario) error {
	if r.built != "" || r.out == "" {
		return errors.New("--profile builds its own node and needs a folder (hint: leave out --node, give --out)")
	}
	r.note("building ./cmd/seawall with profiles")
	var err error
	if r.binary, err = buildProfiled(ctx, r.dir); err != nil {
		return err
	}
	dir := filepath.Join(r.out, "profiles")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var faults []error
	for _, sc := range chosen {
		err := r.profileOne(ctx, sc, dir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.note("%s: %v", sc.name, err)
			faults = append(faults, fmt.Errorf("%s: %w", sc.name, err))
			continue
		}
		r.note("%s: %s", sc.name, strings.Join(profileNames(dir, sc.name), " "))
	}
	return errors.Join(faults...)
}

// profileNames returns where a scenario's profiles go.
func profileNames(dir, scenario string) []string {
	return []string{filepath.Join(dir, scenario+".cpu.pprof"), filepath.Join(dir, scenario+".allocs.pprof")}
}

// profileOne runs a scenario once against a fresh node, twice as long as the
// profiles.
func (r *runner) profileOne(ctx context.Context, sc scenario, dir string) error {
	folder, err := os.MkdirTemp(r.dir, "profile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	port, err := freePort()
	if err != nil {
		return err
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	set := setting{dir: folder, origin: r.origin.addr, memory: usualMemory, certs: r.certs, cores: r.serverCores,
		binary: r.binary, env: []string{"SEAWALL_BENCH_PROFILES=" + at}}
	if sc.small {
		set.memory = smallMemory
	}
	if sc.wasm {
		if set.function, err = buildFunction(ctx, folder); err != nil {
			return err
		}
	}
	s, err := startServer(ctx, set, peers()[0])
	if err != nil {
		return err
	}
	defer s.stop()
	r.report = newReport(ctx, r.options, nil) // thrown away
	seconds := int(math.Ceil(r.length.Seconds()))
	ended := make(chan error, 2)
	for i, kind := range []string{"profile", "allocs"} {
		go func() {
			ended <- saveProfile(ctx, fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", at, kind, seconds), profileNames(dir, sc.name)[i])
		}()
	}
	_, err = sc.run(ctx, r, s, 0)
	return errors.Join(err, <-ended, <-ended)
}

// saveProfile writes what url answers to a file.
func saveProfile(ctx context.Context, url, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	client := &http.Client{}
	body, err := fetchBy(ctx, client, url)
	if err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o644)
}
