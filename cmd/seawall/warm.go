package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// warmCommand is `seawall warm`.
type warmCommand struct {
	URLs        []string `arg:"" optional:"" name:"url" help:"Absolute URLs."`
	Sitemap     string   `placeholder:"URL" help:"And all that this sitemap lists, or the sitemaps of this index."`
	FromLog     string   `placeholder:"FILE" help:"And what this access log, text or JSON, has most often."`
	Top         int      `default:"1000" help:"How many URLs to take of the log (1000)."`
	Concurrency int      `default:"4" help:"How many to fetch at once (4)."`
	nodeFlags
}

// Help is shown under the command's flags.
func (*warmCommand) Help() string {
	return "The node fetches; what is fresh already is not fetched again. Ctrl-C ends it.\n\nExamples:\n" +
		"  seawall warm http://shop.example.com/ http://shop.example.com/news\n" +
		"  seawall warm --sitemap https://shop.example.com/sitemap.xml --concurrency 8\n" +
		"  seawall warm --from-log /var/log/seawall/access.log"
}

// The bounds of the API.
const (
	maxWarmURLs  = 10_000
	pollProgress = 200 * time.Millisecond
	sayProgress  = 2 * time.Second // where there is no terminal
)

// warmState is what the API tells.
type warmState struct {
	ID       string         `json:"id"`
	State    string         `json:"state"`
	Listed   bool           `json:"listed"`
	Total    int            `json:"total"`
	Done     int            `json:"done"`
	Stored   int            `json:"stored"`
	Failed   int            `json:"failed"`
	Bytes    int64          `json:"bytes"`
	Outcomes map[string]int `json:"outcomes"`
	Failures []struct {
		URL    string `json:"url"`
		Detail string `json:"detail"`
	} `json:"failures"`
	Detail  string     `json:"detail,omitempty"`
	BeganAt time.Time  `json:"began_at"`
	EndedAt *time.Time `json:"ended_at"`
}

// Run has the node fetch, and tells how far it is.
func (c *warmCommand) Run(t *terminal) error {
	urls := c.URLs
	if c.FromLog != "" {
		if c.Top < 1 || c.Top > maxWarmURLs {
			return &usageError{fmt.Sprintf("--top: %d is not between 1 and %d", c.Top, maxWarmURLs)}
		}
		top, err := topOfLog(c.FromLog, c.Top)
		if err != nil {
			return err
		}
		urls = append(slices.Clone(urls), top...)
	}
	if len(urls) == 0 && c.Sitemap == "" {
		if c.FromLog != "" {
			return fmt.Errorf("%s has no GET that was answered (hint: --from-log takes an access log of seawall)", c.FromLog)
		}
		return &usageError{"nothing to warm (hint: give URLs, --sitemap or --from-log)"}
	}
	node, err := c.client()
	if err != nil {
		return err
	}
	defer node.close()
	ctx, stop := interruptible()
	defer stop()
	body := struct {
		URLs        []string `json:"urls,omitempty"`
		Sitemap     string   `json:"sitemap,omitempty"`
		Concurrency int      `json:"concurrency"`
	}{urls, c.Sitemap, c.Concurrency}
	var state warmState
	if err := node.call(ctx, "POST", "/v1/warmups", body, &state); err != nil {
		return err
	}
	if state.ID == "" {
		return node.strange()
	}
	if err := c.follow(ctx, node, t, &state); err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(t.out, state); err != nil {
			return err
		}
	} else {
		state.summary(t)
	}
	return state.err()
}

// follow shows progress until the warm-up has ended. Interrupted, it ends it.
func (c *warmCommand) follow(ctx context.Context, node *client, t *terminal, state *warmState) error {
	path := "/v1/warmups/" + url.PathEscape(state.ID)
	bar := isTerminal(t.err) && !c.JSON
	tick := time.NewTicker(pollProgress)
	defer tick.Stop()
	said := time.Now()
	for state.State == "running" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := node.call(last, "DELETE", path, nil, nil); err != nil {
				return fmt.Errorf("interrupted, and the node goes on: %w", err)
			}
			return fmt.Errorf("interrupted with %d of %s done; what was fetched stays", state.Done, plural(state.Total, "URL"))
		}
		var now warmState
		err := node.call(ctx, "GET", path, nil, &now)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return err
		case now.ID != state.ID:
			return node.strange()
		default:
			*state = now
		}
		switch {
		case bar:
			fmt.Fprintf(t.err, "\r%s\x1b[K", state.bar())
		case !c.JSON && time.Since(said) >= sayProgress:
			said = time.Now()
			fmt.Fprintln(t.err, state.line())
		}
	}
	if bar {
		fmt.Fprint(t.err, "\r\x1b[K")
	}
	return nil
}

// barWidth is how many places the bar has.
const barWidth = 30

// bar is the progress for a terminal.
func (s *warmState) bar() string {
	full := 0
	if s.Total > 0 {
		full = min(barWidth, barWidth*s.Done/s.Total)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "] " + s.line()
}

func (s *warmState) line() string {
	of := fmt.Sprint(s.Total)
	if !s.Listed {
		of += "+" // a sitemap is still being read
	}
	line := fmt.Sprintf("%d of %s URLs, %s", s.Done, of, showBytes(s.Bytes))
	if s.Failed > 0 {
		line += fmt.Sprintf(", %d failed", s.Failed)
	}
	return line
}

// summary prints what became of it.
func (s *warmState) summary(t *terminal) {
	took := ""
	if s.EndedAt != nil {
		took = " in " + s.EndedAt.Sub(s.BeganAt).Round(time.Millisecond).String()
	}
	fmt.Fprintf(t.out, "%s%s: %d in the cache now, %d failed, %s fetched\n", plural(s.Done, "URL"), took, s.Stored, s.Failed, showBytes(s.Bytes))
	for _, outcome := range slices.Sorted(maps.Keys(s.Outcomes)) {
		fmt.Fprintf(t.out, "  %-8s %d\n", oneLine(outcome), s.Outcomes[outcome])
	}
	for _, f := range s.Failures {
		fmt.Fprintf(t.out, "  failed   %s: %s\n", oneLine(f.URL), oneLine(f.Detail))
	}
}

// err is why the command fails, if it does.
func (s *warmState) err() error {
	switch {
	case s.State == "failed":
		return fmt.Errorf("the list was not read to its end: %s (hint: what it lists before that is warm)", oneLine(cmp.Or(s.Detail, "no reason given")))
	case s.State == "cancelled":
		return fmt.Errorf("cancelled with %d of %s done (hint: the node ended, or someone cancelled it)", s.Done, plural(s.Total, "URL"))
	case s.Failed > 0:
		return fmt.Errorf("%d of %s failed (hint: the summary tells of the first)", s.Failed, plural(s.Total, "URL"))
	}
	return nil
}

// topOfLog returns the n URLs that an access log has most often, the most
// frequent first.
func topOfLog(path string, n int) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (hint: --from-log takes an access log of seawall)", err)
	}
	defer file.Close()
	counts, err := countURLs(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	urls := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	return urls[:min(n, len(urls))], nil
}
