package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What each server says that it keeps: a budget of bytes is not held by all
// alike, and a hit ratio says little without it.

// bytesKept returns the bytes of cached responses that the server holds, as it
// counts them itself; 0 of a server that does not cache.
func (s *server) bytesKept(ctx context.Context) (int64, error) {
	if s.kept == nil {
		return 0, nil
	}
	n, err := s.kept(ctx)
	if err != nil {
		return 0, fmt.Errorf("bytes that %s keeps: %w", s.peer.name, err)
	}
	return n, nil
}

// sumLines adds the numbers that follow a word in lines of text that begin with
// prefix. It is an error when no line does and one must.
func sumLines(text, prefix, word string, must bool) (int64, error) {
	sum, found := 0.0, false
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		_, value, ok := strings.Cut(rest, word)
		if !ok {
			continue
		}
		if i := strings.IndexFunc(value, func(r rune) bool { return !strings.ContainsRune(" 0123456789.e+", r) }); i >= 0 {
			value = value[:i]
		}
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		sum, found = sum+n, true
	}
	if must && !found {
		return 0, fmt.Errorf("no line begins with %q and has %q", prefix, word)
	}
	return int64(sum), nil
}

// keptByMetrics reads the node's own count: bodies, fields, keys and records.
func keptByMetrics(admin int) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		text, err := fetch(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", admin), nil, nil)
		if err != nil {
			return 0, err
		}
		return sumLines(string(text), `seawall_store_bytes{tier="memory"}`, "", true)
	}
}

// keptInFiles adds the files below dir; those that end meanwhile do not count.
func keptInFiles(dir string) func(context.Context) (int64, error) {
	return func(context.Context) (int64, error) {
		sum := int64(0)
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				sum += info.Size()
			}
			return err
		})
		return sum, err
	}
}

// keptByVarnish asks its own tool for what the storage has given out.
func keptByVarnish(dir string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "varnishstat", "-n", dir, "-1", "-f", "SMA.s0.g_bytes").CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("varnishstat: %w: %.200s", err, out)
		}
		return sumLines(string(out), "SMA.s0.g_bytes", "", true)
	}
}

// keptByHAProxy adds the sizes of the entries that its runtime API lists.
func keptByHAProxy(socket string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, "show cache\n"); err != nil {
			return 0, err
		}
		text, err := io.ReadAll(io.LimitReader(bufio.NewReader(conn), 16<<20))
		if err != nil {
			return 0, err
		}
		if !strings.Contains(string(text), "shctx:") {
			return 0, fmt.Errorf("show cache: %.200s", text)
		}
		return sumLines(string(text), "0x", "size:", false)
	}
}

// keptByTrafficServer reads its statistics plugin: what the cache file holds,
// which has all that the RAM cache has.
func keptByTrafficServer(port int) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		text, err := fetch(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/_stats", port), nil, nil)
		if err != nil {
			return 0, err
		}
		return sumLines(string(text), `"proxy.process.cache.bytes_used"`, `: "`, true)
	}
}
