package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// functionSaid are what the function may write into X-Function: by the two
// configurations of the file, or by those of the two uploads.
func functionSaid() []string { return []string{"ran-a", "ran-b", "ran-c", "ran-d"} }

// swapOften uploads the edge function's module with another configuration, which
// stands before the file's, or takes the upload away again. Every fourth module
// is none and must change nothing. An answer to a request begun after an upload
// must be that upload's.
func (s *soaker) swapOften(ctx context.Context) {
	module, err := os.ReadFile(s.server.setting.function)
	if err != nil {
		s.fail("read the function: %v", err)
		return
	}
	n := 0
	every(ctx, 3*time.Second, func(rng *rand.Rand) {
		n++
		switch n % 4 {
		case 1, 2:
			err = s.upload(ctx, module, []string{"ran-c", "ran-d"}[n%2])
		case 3:
			err = s.uploadBroken(ctx, module[:rng.IntN(len(module))])
		case 0:
			_, err = fetch(ctx, http.MethodDelete, s.functionURL(), nil, nil)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.fail("swap of the function: %v", err)
			return
		}
		s.count(func(sum *soakSummary) { sum.Swaps++ })
	})
}

func (s *soaker) functionURL() string { return "http://" + s.server.admin + "/v1/functions/headers" }

// upload makes module the function, to write what it is told, and looks whether
// it does.
func (s *soaker) upload(ctx context.Context, module []byte, says string) error {
	// Limits of time are for machines that do nothing else.
	q := url.Values{"config": {"X-Function: " + says}, "limits.queue_wait": {"1s"}, "limits.start": {"10s"}}
	text, err := fetch(ctx, http.MethodPut, s.functionURL()+"?"+q.Encode(), http.Header{"Content-Type": {"application/wasm"}}, bytes.NewReader(module))
	if err != nil {
		return err
	}
	var now struct {
		SHA256, State, Source string
	}
	sum := sha256.Sum256(module)
	if err := json.Unmarshal(text, &now); err != nil {
		return fmt.Errorf("an upload was answered %q: %w", text, err)
	}
	if now.State != "loaded" || now.Source != "api" || now.SHA256 != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("an upload was answered %q; want it loaded, from the API, with the module's SHA-256 %x", text, sum)
	}
	return s.says(ctx, says)
}

// says looks whether a request that begins now gets this field. One that fails
// because of the origin says nothing.
func (s *soaker) says(ctx context.Context, want string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server.url(h1)+soakObject(0).path(), nil)
	if err != nil {
		return err
	}
	client, end := newClient(h1)
	defer end()
	resp, err := client.Do(req)
	if err != nil {
		if s.tolerates(time.Now()) {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Function"); resp.StatusCode == http.StatusOK && got != want {
		return fmt.Errorf("after an upload that says %s: got X-Function %q", want, got)
	}
	return nil
}

// uploadBroken uploads a part of a module, which is to be refused.
func (s *soaker) uploadBroken(ctx context.Context, part []byte) error {
	text, err := fetch(ctx, http.MethodPut, s.functionURL(), http.Header{"Content-Type": {"application/wasm"}}, bytes.NewReader(part))
	if err == nil {
		return fmt.Errorf("%d bytes of a module were taken: %q", len(part), text)
	}
	if !strings.Contains(err.Error(), "422") && !strings.Contains(err.Error(), "400") {
		return errors.Join(errors.New("a broken module"), err)
	}
	return nil
}
