package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
)

// versionCommand is `seawall version`.
type versionCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// build is what this binary is made of.
type build struct {
	Version string            `json:"version"`
	Commit  string            `json:"commit"`
	Go      string            `json:"go"`
	System  string            `json:"system"`
	Modules map[string]string `json:"modules"`
}

// noted are the modules whose version a report of trouble should tell.
func noted() []string {
	return []string{
		"github.com/andybalholm/brotli", "github.com/dgraph-io/ristretto/v2", "github.com/dunglas/httpsfv", "github.com/goccy/go-yaml",
		"github.com/golang-jwt/jwt/v5", "github.com/klauspost/compress", "github.com/nats-io/nats-server/v2",
		"github.com/pquerna/cachecontrol", "github.com/prometheus/client_golang", "github.com/quic-go/quic-go", "github.com/tetratelabs/wazero", "golang.org/x/net", "golang.org/x/sys",
	}
}

func readBuild() build {
	b := build{
		Version: "unknown", Commit: "unknown", Go: runtime.Version(),
		System: runtime.GOOS + "/" + runtime.GOARCH, Modules: make(map[string]string),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Commit += " (modified)"
		}
	}
	for _, m := range info.Deps {
		if slices.Contains(noted(), m.Path) {
			b.Modules[m.Path] = m.Version
		}
	}
	return b
}

// Run prints what this binary is.
func (c *versionCommand) Run(t *terminal) error {
	b := readBuild()
	if c.JSON {
		e := json.NewEncoder(t.out)
		e.SetIndent("", "  ")
		return e.Encode(b)
	}
	fmt.Fprintf(t.out, "seawall %s\ncommit  %s\ngo      %s %s\n", b.Version, b.Commit, b.Go, b.System)
	for _, path := range noted() {
		if v := b.Modules[path]; v != "" {
			fmt.Fprintf(t.out, "module  %s %s\n", path, v)
		}
	}
	return nil
}
