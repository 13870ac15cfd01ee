package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// rollout says which requests a candidate gets.
type rollout struct {
	Percent float64 `json:"percent"`          // 0 to 100
	By      string  `json:"by,omitempty"`     // "address", which "" is too, or "cookie:NAME"
	Shadow  bool    `json:"shadow,omitempty"` // copies of them: what it makes is compared and thrown away
}

// cookie is whose value chooses, "" for the client's address.
func (r *rollout) cookie() string {
	name, ok := strings.CutPrefix(r.By, "cookie:")
	if !ok {
		return ""
	}
	return name
}

// candidateSettings are another version of a function. What it does not have is
// the function's.
type candidateSettings struct {
	File             string // "": there is none
	Config, VMConfig string
	rollout
}

// What the parameters of a rollout take.
const (
	kindPercent = "a number from 0 to 100, as 5 or 0.5"
	kindBy      = "address or cookie:NAME"
)

func candidateKeys() []key[candidateSettings] {
	type s = candidateSettings
	return []key[s]{
		{name: "file", must: true, takes: one("the path of a WebAssembly module", parseFile, func(s *s) *string { return &s.File }),
			meaning: "its module; an uploaded candidate stands before it"},
		{name: "percent", must: true, takes: one(kindPercent, parsePercent, func(s *s) *float64 { return &s.Percent }),
			meaning: "the part of the requests that it gets"},
		{name: "by", def: "address", takes: one(kindBy, parseBy, func(s *s) *string { return &s.By }),
			meaning: "what chooses: a client has one version on every node, and keeps the candidate as percent grows; who has not the cookie is chosen by address"},
		{name: "shadow", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Shadow }),
			meaning: "whether it gets copies of them: differences are counted, and nothing it makes is used"},
		{name: "config", takes: document(func(s *s) *string { return &s.Config }),
			meaning: "given to the guest; without it, the function's"},
		{name: "vm_config", takes: document(func(s *s) *string { return &s.VMConfig }),
			meaning: "the same for the machine as a whole (proxy-wasm)"},
	}
}

func parsePercent(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("%s is not between 0 and 100", show(s))
	}
	return f, nil
}

func parseBy(s string) (string, error) {
	name, cookie := strings.CutPrefix(s, "cookie:")
	if s == "address" {
		return s, nil
	}
	if _, err := parseField(name); !cookie || err != nil {
		return "", fmt.Errorf("%s is neither", show(s))
	}
	return s, nil
}

// wanted is what the function's candidate is to be made of: what was uploaded,
// or the configuration's.
func (f *functionSettings) wanted(u *upload) (w wanted, by rollout, ok bool) {
	w = wanted{name: f.Name, upload: u, options: f.functionOptions, candidate: true}
	c := &f.Candidate
	switch {
	case u != nil && u.Rollout != nil:
		by = *u.Rollout
	case u != nil: // its record cannot be read
	case c.File == "":
		return w, by, false
	default:
		w.file, by = c.File, c.rollout
		if c.Config != "" {
			w.options.Config = c.Config
		}
		if c.VMConfig != "" {
			w.options.VMConfig = c.VMConfig
		}
	}
	w.options.shadow = by.Shadow
	return w, by, true
}

// checkCandidate refuses what would be chosen for one client and stored for all.
func (f *functionSettings) checkCandidate(d *decoder, root ast.Node, s *settings) {
	if f.Candidate.File == "" || f.Candidate.Shadow {
		return
	}
	if sites := s.originUsers(f.Name); len(sites) > 0 {
		at := child(child(child(root, "functions"), f.Name), "candidate")
		d.fail(at, "%s runs %s at the origin's side, where what it makes for one client is stored for all; write shadow: true, or let viewer run it", sites[0], f.Name)
	}
}

// originUsers are the sites that run a function at the origin's side.
func (s *settings) originUsers(name string) (sites []string) {
	for i := range s.Sites {
		if slices.Contains(s.Sites[i].Functions.Origin, name) {
			sites = append(sites, s.Sites[i].Name)
		}
	}
	return sites
}
