package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"seawall/edge/admin"
	"seawall/purge"
)

// candidateSuffix parts an uploaded candidate's name from its function's. No
// function's name has a dot.
const candidateSuffix = ".candidate"

// cutRollout takes what says that u is a candidate from its settings.
func (u *upload) cutRollout() (bad []*purge.FieldError) {
	r, given := rollout{By: "address"}, make(map[string]bool)
	take := func(name, kind string, set func(text string) error) {
		values, ok := u.Settings[name]
		if given[name] = ok; !ok {
			return
		}
		if len(values) != 1 {
			bad = append(bad, &purge.FieldError{Field: name, Detail: fmt.Sprintf("is there %d times", len(values))})
		} else if err := set(values[0]); err != nil {
			bad = append(bad, &purge.FieldError{Field: name, Detail: fmt.Sprintf("%v; it is to be %s", err, kind)})
		}
	}
	take("rollout", kindPercent, func(text string) (err error) { r.Percent, err = parsePercent(text); return err })
	take("by", kindBy, func(text string) (err error) { r.By, err = parseBy(text); return err })
	take("shadow", "true or false", func(text string) (err error) { r.Shadow, err = parseBool(text); return err })
	if !given["rollout"] && !given["by"] && !given["shadow"] || len(bad) > 0 {
		return bad
	}
	if !given["rollout"] {
		if !r.Shadow {
			return append(bad, &purge.FieldError{Field: "rollout", Detail: "is missing; it is to be " + kindPercent})
		}
		r.Percent = 100
	}
	u.Settings = maps.Clone(u.Settings)
	for name := range given {
		delete(u.Settings, name)
	}
	u.Rollout = &r
	return nil
}

// candidateStands is the answer to what would change a function beneath its
// candidate.
func candidateStands() error {
	return &admin.FunctionError{Status: http.StatusConflict,
		Detail: "The function has an uploaded candidate; promote it or roll it back first. Nothing was done."}
}

// mayRoll refuses what would be chosen for one client and stored for all.
func (s *settings) mayRoll(name string, r *rollout) error {
	sites := s.originUsers(name)
	if r.Shadow || len(sites) == 0 {
		return nil
	}
	return &admin.FunctionError{Status: http.StatusConflict,
		Detail: "A site runs this function at the origin's side, where what it makes for one client is stored for all; use shadow=true, or upload it without rollout. Nothing was done.",
		Fields: []*purge.FieldError{{Field: "name", Detail: "is run at the origin's side by " + strings.Join(sites, ", ")}}}
}

// putCandidate makes u the candidate of the function of its name.
func (n *node) putCandidate(u *upload, old *generation) (f admin.Function, created bool, err error) {
	name := u.Name
	file, current := old.settings.function(name), n.functions.uploads[name]
	if current == nil && (file == nil || file.File == "") {
		return f, false, &admin.FunctionError{Status: http.StatusConflict, Detail: "There is no function of this name that it could be a candidate of; upload it without rollout."}
	}
	if err := old.settings.mayRoll(name, u.Rollout); err != nil {
		return f, false, err
	}
	if current.same(u) {
		return f, false, &admin.FunctionError{Status: http.StatusConflict, Detail: "The function is this module with these settings already; nothing was done."}
	}
	u.Name += candidateSuffix
	was := n.functions.uploads[u.Name]
	if was == nil && len(n.functions.uploads) >= maxUploaded {
		return f, false, &admin.FunctionError{Status: http.StatusConflict, Detail: fmt.Sprintf("There are %d uploaded functions, as many as are kept; remove one first.", maxUploaded)}
	}
	uploads, module := maps.Clone(n.functions.uploads), u.module
	uploads[u.Name] = u
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return f, false, refused(err, module)
	}
	if err := n.keep(u, module, g); err != nil {
		return f, false, err
	}
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function has a candidate", "function", name, "sha256", u.SHA256, "bytes", u.Size, "percent", u.Rollout.Percent, "by", u.Rollout.By, "shadow", u.Rollout.Shadow)
	return g.describe(name), was == nil, nil
}

// candidate is the uploaded candidate of a function; the caller holds
// n.changing.
func (n *node) candidate(name string) (*upload, error) {
	if n.ended {
		return nil, notEnded()
	}
	if u := n.functions.uploads[name+candidateSuffix]; u != nil {
		return u, nil
	}
	if f := n.current.Load().settings.function(name); f != nil && f.Candidate.File != "" {
		return nil, &admin.FunctionError{Status: http.StatusConflict, Detail: "The candidate is the configuration's, and is changed there."}
	}
	return nil, &admin.FunctionError{Status: http.StatusNotFound, Detail: "There is no function of this name that has a candidate."}
}

// rollFunction changes which requests a candidate gets. On an error all is as
// it was.
func (n *node) rollFunction(_ context.Context, name string, change admin.Rollout) (f admin.Function, err error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	was, err := n.candidate(name)
	if err != nil {
		return f, err
	}
	u := *was
	r := rollout{By: "address"}
	if was.Rollout != nil {
		r = *was.Rollout
	}
	if bad := r.change(change); len(bad) > 0 {
		return f, badUpload(bad...)
	}
	u.Rollout, u.unproven = &r, true
	old := n.current.Load()
	if err := old.settings.mayRoll(name, &r); err != nil {
		return f, err
	}
	uploads := maps.Clone(n.functions.uploads)
	uploads[u.Name] = &u
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return f, cannotRun(err)
	}
	if err := n.functions.kept.note(&u); err != nil {
		return f, fmt.Errorf("function %s: not kept: %w", u.Name, errors.Join(err, n.discard(g)))
	}
	u.unproven = false
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function's candidate", "function", name, "percent", r.Percent, "by", r.By, "shadow", r.Shadow)
	return g.describe(name), nil
}

// change puts what a call gave over r.
func (r *rollout) change(c admin.Rollout) (bad []*purge.FieldError) {
	if c.Percent != nil {
		if !(*c.Percent >= 0 && *c.Percent <= 100) {
			bad = append(bad, &purge.FieldError{Field: "percent", Detail: "is not between 0 and 100"})
		}
		r.Percent = *c.Percent
	}
	if c.By != nil {
		var err error
		if r.By, err = parseBy(*c.By); err != nil {
			bad = append(bad, &purge.FieldError{Field: "by", Detail: fmt.Sprintf("%v; it is to be %s", err, kindBy)})
		}
	}
	if c.Shadow != nil {
		r.Shadow = *c.Shadow
	}
	return bad
}

// cannotRun is the answer when what was kept does not run any more.
func cannotRun(err error) error {
	return &admin.FunctionError{Status: http.StatusConflict, Detail: "The candidate cannot run, so all is as it was: " + err.Error() + "."}
}

// promoteFunction makes a candidate the function itself, for all requests. On
// an error all is as it was.
func (n *node) promoteFunction(_ context.Context, name string) (f admin.Function, err error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	was, err := n.candidate(name)
	if err != nil {
		return f, err
	}
	module, err := was.read()
	if err != nil {
		return f, cannotRun(err)
	}
	u := &upload{Name: name, SHA256: was.SHA256, Size: was.Size, At: time.Now().UTC(), Settings: was.Settings, module: module, unproven: true}
	old := n.current.Load()
	uploads := maps.Clone(n.functions.uploads)
	uploads[name] = u
	delete(uploads, was.Name)
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return f, cannotRun(err)
	}
	if err := n.keep(u, module, g); err != nil {
		return f, err
	}
	// From here on it is promoted, also to a node that starts: a candidate that
	// is the function itself is none.
	if err := n.functions.kept.remove(was.Name); err != nil {
		n.log.Warn("a promoted candidate's files are left", "function", name, "error", err)
	}
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function in use", "function", name, "sha256", u.SHA256, "bytes", u.Size)
	return g.describe(name), nil
}

// rollbackFunction takes a candidate away. On an error all is as it was.
func (n *node) rollbackFunction(_ context.Context, name string) (f admin.Function, err error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	was, err := n.candidate(name)
	if err != nil {
		return f, err
	}
	old := n.current.Load()
	uploads := maps.Clone(n.functions.uploads)
	delete(uploads, was.Name)
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return f, &admin.FunctionError{Status: http.StatusConflict, Detail: "What stands behind the candidate cannot run, so it stays: " + err.Error() + "."}
	}
	if err := n.functions.kept.remove(was.Name); err != nil {
		return f, fmt.Errorf("function %s: not removed: %w", was.Name, errors.Join(err, n.discard(g)))
	}
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function's candidate is rolled back", "function", name)
	return g.describe(name), nil
}

// note writes the record alone, whose module is there.
func (f *uploadFolder) note(u *upload) error {
	if *f == "" {
		return nil
	}
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return writeWhole(f.file(u.Name, "json"), text)
}

// settle ends promotions that a crash has interrupted: the function is its
// candidate already.
func (f *uploadFolder) settle(all map[string]*upload, log *slog.Logger) {
	for name, u := range all {
		base, ok := strings.CutSuffix(name, candidateSuffix)
		current := all[base]
		if !ok || u.broken != nil || current == nil || current.broken != nil || !current.same(u) {
			continue
		}
		if err := f.remove(name); err != nil {
			log.Warn("a promoted candidate's files are left", "function", base, "error", err)
		}
		delete(all, name)
	}
}
