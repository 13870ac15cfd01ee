package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"seawall/purge"
)

// purgeCommand is `seawall purge`.
type purgeCommand struct {
	URLs       []string      `arg:"" optional:"" name:"url" help:"Absolute URLs; all variants of each."`
	Tag        []string      `sep:"none" placeholder:"TAG" help:"What has this tag, within a site. May be repeated, as those below."`
	Prefix     []string      `sep:"none" placeholder:"PREFIX" help:"What is below http://host/path, or host/path for both schemes."`
	Host       []string      `sep:"none" placeholder:"HOST" help:"All of a host, on every port unless it names one."`
	Everything bool          `help:"All of a site."`
	Site       string        `placeholder:"NAME" help:"The site that --tag and --everything mean; \"*\" for all. Needed where there are several."`
	Soft       bool          `help:"Make stale instead of removing: it may still be served while it is fetched anew."`
	Refresh    bool          `help:"As --soft, and fetch the hottest of it anew, behind."`
	AnyQuery   bool          `help:"Each URL with any query."`
	DryRun     bool          `help:"Only count what would be reached."`
	Wait       bool          `help:"Wait until every node has applied it."`
	Timeout    time.Duration `default:"1m" help:"How long --wait waits."`
	nodeFlags
}

// Help is shown under the command's flags.
func (*purgeCommand) Help() string {
	return "It takes the same time however much it reaches, and is done when the command ends.\n\nExamples:\n" +
		"  seawall purge http://shop.example.com/a http://shop.example.com/b\n" +
		"  seawall purge --tag product-17 --soft\n" +
		"  seawall purge --prefix shop.example.com/images --dry-run"
}

// The answers of the API.
type (
	purgeAnswer struct {
		ID        *string    `json:"id"`
		AppliedAt *time.Time `json:"applied_at"`
		Matched   *struct {
			Objects int      `json:"objects"`
			Bytes   int64    `json:"bytes"`
			Sample  []string `json:"sample"`
		} `json:"matched"`
	}
	purgeState struct {
		ID    string `json:"id"`
		Kind  string `json:"kind"`
		Nodes []struct {
			Node      string     `json:"node"`
			AppliedAt *time.Time `json:"applied_at"`
		} `json:"nodes"`
	}
)

// Run purges.
func (c *purgeCommand) Run(t *terminal) error {
	if len(c.URLs)+len(c.Tag)+len(c.Prefix)+len(c.Host) == 0 && !c.Everything {
		return &usageError{"nothing to purge (hint: give URLs, --tag, --prefix, --host or --everything)"}
	}
	node, err := c.client()
	if err != nil {
		return err
	}
	defer node.close()
	ctx, stop := interruptible()
	defer stop()
	body := struct {
		purge.Request
		DryRun bool `json:"dry_run,omitempty"`
	}{purge.Request{
		URLs: c.URLs, Tags: c.Tag, Prefixes: c.Prefix, Hosts: c.Host, Everything: c.Everything, Site: c.Site,
		Soft: c.Soft, Refresh: c.Refresh, AnyQuery: c.AnyQuery,
	}, c.DryRun}
	var answer purgeAnswer
	if err := node.call(ctx, "POST", "/v1/purges", body, &answer); err != nil {
		return err
	}
	if c.DryRun && answer.Matched == nil || !c.DryRun && answer.ID == nil {
		return node.strange()
	}
	if c.DryRun && !c.JSON {
		answer.say(t)
		return nil
	}
	if c.DryRun || !c.Wait {
		return c.done(t, &answer)
	}
	state, err := c.await(ctx, node, t, *answer.ID)
	if err == nil && c.JSON {
		return printJSON(t.out, state)
	}
	if err == nil {
		fmt.Fprintf(t.out, "%s %s on %s\n", c.word(), oneLine(*answer.ID), plural(len(state.Nodes), "node"))
	}
	return err
}

func (c *purgeCommand) done(t *terminal, answer *purgeAnswer) error {
	if c.JSON {
		return printJSON(t.out, answer)
	}
	fmt.Fprintf(t.out, "%s %s\n", c.word(), oneLine(*answer.ID))
	return nil
}

// word is what was done.
func (c *purgeCommand) word() string {
	if c.Soft || c.Refresh {
		return "made stale:"
	}
	return "purged:"
}

// say prints what a dry run counted.
func (a *purgeAnswer) say(t *terminal) {
	if a.Matched.Objects == 0 {
		fmt.Fprintln(t.out, "nothing that is stored would be reached")
		return
	}
	fmt.Fprintf(t.out, "%s would be reached, %s", plural(a.Matched.Objects, "object"), showBytes(a.Matched.Bytes))
	if len(a.Matched.Sample) < a.Matched.Objects {
		fmt.Fprint(t.out, "; some of them")
	}
	fmt.Fprintln(t.out, ":")
	for _, u := range a.Matched.Sample {
		fmt.Fprintln(t.out, "  "+oneLine(u))
	}
}

// await asks until every node has applied the purge, and tells how many have.
func (c *purgeCommand) await(ctx context.Context, node *client, t *terminal, id string) (*purgeState, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	said := -1
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var state purgeState
		if err := node.call(ctx, "GET", "/v1/purges/"+url.PathEscape(id), nil, &state); err != nil {
			return nil, fmt.Errorf("purge %s was accepted, but where it is applied is not known: %w", id, err)
		}
		applied, missing := 0, []string{}
		for _, n := range state.Nodes {
			if n.AppliedAt != nil && !n.AppliedAt.IsZero() {
				applied++
			} else {
				missing = append(missing, oneLine(n.Node))
			}
		}
		if applied != said && !c.JSON {
			fmt.Fprintf(t.err, "applied by %d of %s\n", applied, plural(len(state.Nodes), "node"))
			said = applied
		}
		if len(missing) == 0 && applied > 0 {
			return &state, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("purge %s is applied by %d of %s after %s, not by %s (hint: each applies it when it is back; --timeout waits longer)",
				id, applied, plural(len(state.Nodes), "node"), c.Timeout, strings.Join(missing, ", "))
		}
	}
}
