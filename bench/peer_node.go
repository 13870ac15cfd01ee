package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// moduleRoot returns the folder of go.mod, from the working directory upwards.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "seawall")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no cmd/seawall from the working directory upwards (hint: run it in the project, or name a binary with --node)")
		}
		dir = parent
	}
}

// buildNode builds the node into dir and returns its path. More arguments go to
// go build.
func buildNode(ctx context.Context, dir string, args ...string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "seawall")
	args = append(append([]string{"build", "-o", path}, args...), "./cmd/seawall")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/seawall: %w\n%s", err, out)
	}
	return path, nil
}

// buildFunction builds the sample edge function into dir, which sets fields of
// every response, and returns its path.
func buildFunction(ctx context.Context, dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "headers.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", path, "./wasm/examples/headers")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./wasm/examples/headers: %w\n%s", err, out)
	}
	return path, nil
}

// configuration returns the node's, as YAML.
func (s *setting) configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, `listen:
  http: 127.0.0.1:%d
  https: 127.0.0.1:%d
  admin: 127.0.0.1:%d
tls:
  certificates:
    - cert: %q
      key: %q
cache:
  memory: %d
sites:
  - name: bench
    origins: ["http://%s"]
`, s.clear, s.tls, s.admin, s.certs.cert, s.certs.key, s.memory, s.origin)
	if s.function != "" {
		fmt.Fprintf(&b, "    functions:\n      viewer: [headers]\nfunctions:\n  headers:\n    file: %q\n    config: %q\n",
			s.function, "X-Function: ran"+s.variation)
		if s.variation != "" {
			// The soak is about bytes, on machines that may be busy.
			b.WriteString("    limits: {queue_wait: 1s}\n")
		}
	}
	fmt.Fprintf(&b, "log:\n  level: warn\n  access: %q\n", filepath.Join(s.dir, "access.log"))
	return b.String()
}

// configure writes the node's configuration and returns its path.
func (s *setting) configure() (string, error) {
	path := filepath.Join(s.dir, "seawall.yaml")
	return path, os.WriteFile(path, []byte(s.configuration()), 0o600)
}

func startNode(_ context.Context, s *setting) (*server, error) {
	path, err := s.configure()
	if err != nil {
		return nil, err
	}
	env := append([]string{fmt.Sprintf("GOMAXPROCS=%d", len(s.cores))}, s.env...)
	p, err := startProcess(node, s.dir, s.cores, env, nil,
		s.binary, "serve", "--config", path, "--data", filepath.Join(s.dir, "data"), "--drain", "1s")
	if err != nil {
		return nil, err
	}
	return &server{process: p, kept: keptByMetrics(s.admin), purge: func(path string) (method, url, contentType, body string) {
		return http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/purges", s.admin), "application/json",
			fmt.Sprintf(`{"urls":["http://127.0.0.1:%d%s"]}`, s.clear, path)
	}}, nil
}

func startBare(_ context.Context, s *setting) (*server, error) {
	p, err := self("bare", s.dir, s.cores, nil, "bare",
		"--http", fmt.Sprintf("127.0.0.1:%d", s.clear), "--https", fmt.Sprintf("127.0.0.1:%d", s.tls),
		"--cert", s.certs.cert, "--key", s.certs.key)
	if err != nil {
		return nil, err
	}
	return &server{process: p}, nil
}
