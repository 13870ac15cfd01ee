package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"seawall/edge/admin"
	"seawall/purge"
	"seawall/wasm"
)

// listFunctions is every function of the generation of the moment, by name.
func (n *node) listFunctions() []admin.Function {
	g, shard := n.current.enter()
	defer g.leave(shard)
	var all []admin.Function
	for _, name := range slices.Sorted(maps.Keys(g.functions.members)) {
		all = append(all, g.describe(name))
	}
	return all
}

// describe says what there is to say of one function. A request is inside the
// generation, or it is not put to use yet.
func (g *generation) describe(name string) admin.Function {
	m := g.functions.members[name]
	f := m.describe(name)
	f.Sites, f.Percent = g.settings.users(name), 100
	if c := m.candidate; c != nil {
		other := c.describe(name)
		other.Percent, other.By, other.Shadow = c.rollout.Percent, c.rollout.By, c.rollout.Shadow
		if !other.Shadow && other.Why == "" {
			f.Percent -= other.Percent
		}
		f.Candidate = &other
	}
	return f
}

func (m *member) describe(name string) admin.Function {
	f := admin.Function{Name: name, Why: m.why, File: m.file}
	if m.upload != nil {
		f.Uploaded, f.At, f.File = true, m.upload.At, ""
	}
	if m.why != "" {
		return f
	}
	f.SHA256, f.Size, f.ABI, f.Stats = m.sum, m.size, m.ABI(), m.Stats()
	f.Upstreams, f.Keys, f.Maps = m.options.Upstreams, m.options.Keys, m.options.Maps
	f.ShadowStats, _ = m.Function.Shadow()
	f.Mode, f.OnError = "shared", "closed"
	if m.Mode() == wasm.ModeReset {
		f.Mode = "reset"
	}
	if m.options.OnError == wasm.Open {
		f.OnError = "open"
	}
	return f
}

// users are the sites that run a function.
func (s *settings) users(name string) (sites []string) {
	for i := range s.Sites {
		if at := &s.Sites[i].Functions; slices.Contains(at.Viewer, name) || slices.Contains(at.Origin, name) {
			sites = append(sites, s.Sites[i].Name)
		}
	}
	return sites
}

// notEnded is the answer of a node that is about to end.
func notEnded() error {
	return &admin.FunctionError{Status: http.StatusServiceUnavailable, Detail: "The node is ending; nothing was done."}
}

// putFunction makes an uploaded module the function of its name: it is loaded,
// then kept, then swapped in. On an error all is as it was.
func (n *node) putFunction(_ context.Context, in admin.FunctionUpload) (admin.Function, bool, error) {
	var none admin.Function
	if _, err := parseFunctionName(in.Name); err != nil {
		return none, false, badUpload(&purge.FieldError{Field: "name", Detail: strings.TrimPrefix(err.Error(), show(in.Name)+" ")})
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.ended {
		return none, false, notEnded()
	}
	old := n.current.Load()
	u := &upload{Name: in.Name, SHA256: hashOf(in.Module), Size: len(in.Module), At: time.Now().UTC(), Settings: in.Settings, module: in.Module, unproven: true}
	if bad := u.cutRollout(); len(bad) > 0 {
		return none, false, badUpload(bad...)
	}
	if bad := u.apply(old.settings, new(functionOptions)); len(bad) > 0 {
		return none, false, badUpload(bad...)
	}
	if u.Rollout != nil {
		return n.putCandidate(u, old)
	}
	was := n.functions.uploads[in.Name]
	if was == nil && len(n.functions.uploads) >= maxUploaded {
		return none, false, &admin.FunctionError{Status: http.StatusConflict, Detail: fmt.Sprintf("There are %d uploaded functions, as many as are kept; remove one first.", maxUploaded)}
	}
	if was.same(u) && old.functions.members[in.Name].why == "" && n.functions.kept.whole(was) {
		return old.describe(in.Name), false, nil
	}
	if n.functions.uploads[in.Name+candidateSuffix] != nil {
		return none, false, candidateStands()
	}
	if err := n.functions.kept.remove(in.Name + candidateSuffix); err != nil { // of a promotion that could not; it would come back
		return none, false, fmt.Errorf("function %s: what a candidate has left: %w", in.Name, err)
	}
	uploads := maps.Clone(n.functions.uploads)
	uploads[in.Name] = u
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return none, false, refused(err, in.Module)
	}
	if err := n.keep(u, in.Module, g); err != nil {
		return none, false, err
	}
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function in use", "function", in.Name, "sha256", u.SHA256, "bytes", u.Size)
	return g.describe(in.Name), was == nil, nil
}

// keep puts u on disk before g, which has it, is put to use. On an error g is
// gone.
func (n *node) keep(u *upload, module []byte, g *generation) error {
	if err := n.functions.kept.keep(u, module); err != nil {
		return fmt.Errorf("function %s: not kept: %w", u.Name, errors.Join(err, n.discard(g)))
	}
	u.unproven = false
	if *n.functions.kept != "" {
		u.module = nil
	}
	return nil
}

// same reports whether u and o are made of the same.
func (u *upload) same(o *upload) bool {
	return u != nil && u.SHA256 == o.SHA256 && maps.EqualFunc(u.Settings, o.Settings, slices.Equal)
}

func badUpload(fields ...*purge.FieldError) error {
	what := "One field is not right"
	if len(fields) > 1 {
		what = "Some fields are not right"
	}
	return &admin.FunctionError{Status: http.StatusBadRequest, Detail: what + "; nothing was done.", Fields: fields}
}

// refused is why a module was not taken, a sentence each.
func refused(err error, module []byte) error {
	sentences := wasm.Check(module).Refused
	if len(sentences) == 0 {
		sentences = []string{err.Error()}
		var list *faults
		if errors.As(err, &list) && len(list.list) > 0 {
			sentences = []string{list.list[0].text}
		}
	}
	e := &admin.FunctionError{Status: http.StatusUnprocessableEntity, Detail: "The module was not taken; what ran before goes on."}
	for _, s := range sentences[:min(len(sentences), 20)] {
		e.Fields = append(e.Fields, &purge.FieldError{Field: "module", Detail: s})
	}
	return e
}

// removeFunction takes an uploaded module away. On an error all is as it was.
func (n *node) removeFunction(_ context.Context, name string) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.ended {
		return notEnded()
	}
	old := n.current.Load()
	file := old.settings.function(name)
	if n.functions.uploads[name] == nil {
		if file == nil {
			return &admin.FunctionError{Status: http.StatusNotFound, Detail: "There is no function of this name."}
		}
		return &admin.FunctionError{Status: http.StatusConflict, Detail: "Nothing was uploaded of this name: the function is the configuration's, and is removed there."}
	}
	if n.functions.uploads[name+candidateSuffix] != nil {
		return candidateStands()
	}
	if err := n.functions.kept.remove(name + candidateSuffix); err != nil {
		return fmt.Errorf("function %s: what a candidate has left: %w", name, err)
	}
	if sites := old.settings.users(name); len(sites) > 0 && (file == nil || file.File == "") {
		return &admin.FunctionError{Status: http.StatusConflict,
			Detail: "A site runs this function, and the configuration has no file for it; take it out of the site's functions first.",
			Fields: []*purge.FieldError{{Field: "name", Detail: "is run by " + strings.Join(sites, ", ")}}}
	}
	uploads := maps.Clone(n.functions.uploads)
	delete(uploads, name)
	g, err := n.build(old.settings, old, uploads, false)
	if err != nil {
		return &admin.FunctionError{Status: http.StatusConflict, Detail: "The configuration's own module of this name cannot run, so the uploaded one stays: " + err.Error() + "."}
	}
	if err := n.functions.kept.remove(name); err != nil {
		return fmt.Errorf("function %s: not removed: %w", name, errors.Join(err, n.discard(g)))
	}
	n.functions.uploads = uploads
	n.swap(g, old)
	n.log.Info("function removed", "function", name)
	return nil
}

// swap puts g in the place of old, which ends with its last request.
func (n *node) swap(g, old *generation) {
	n.put(g)
	n.retired.Go(func() { n.end(old) })
}
