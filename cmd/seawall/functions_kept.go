package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"seawall/purge"
)

// The bounds of what is uploaded.
const (
	maxUploaded = 128         // functions
	maxRecord   = 2 * 1 << 20 // bytes of what is written of one beside its module
)

// upload is an uploaded function as it is kept: NAME.json, and its module in
// NAME.wasm.
type upload struct {
	Name   string    `json:"name"`
	SHA256 string    `json:"sha256"`
	Size   int       `json:"size"`
	At     time.Time `json:"uploaded_at"`
	// Settings are those that the call gave, as it gave them. What it did not
	// give is the configuration's.
	Settings map[string][]string `json:"settings"`
	// Rollout is a candidate's.
	Rollout *rollout `json:"rollout,omitempty"`

	module   []byte // when there is no folder, or before it is kept
	path     string // of the module, when there is
	broken   error  // why it cannot be read
	unproven bool   // it is not kept yet: where it does not run, it is refused
}

// read returns the module.
func (u *upload) read() ([]byte, error) {
	if u.broken != nil || u.path == "" {
		return u.module, u.broken
	}
	source, err := readModule(u.path)
	if err != nil {
		return nil, err
	}
	if got := hashOf(source); got != u.SHA256 {
		return nil, fmt.Errorf("%s is damaged: it has the hash %.16s..., and %.16s... was uploaded", u.path, got, u.SHA256)
	}
	return source, nil
}

// apply puts the call's settings over o. s has the upstreams.
func (u *upload) apply(s *settings, o *functionOptions) (bad []*purge.FieldError) {
	fault := func(field, format string, args ...any) {
		bad = append(bad, &purge.FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
	for name, values := range u.Settings {
		if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			fault(name, "is not UTF-8") // a record could not hold it as it is
			continue
		}
		if list := s.granted(o); slices.ContainsFunc(list, func(g granted) bool { return g.key == name }) {
			g := list[slices.IndexFunc(list, func(g granted) bool { return g.key == name })]
			*g.names = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
			for _, v := range *g.names {
				if !g.known(v) {
					fault(name, "is %s, and the configuration has no %s of that name", show(v), g.what)
				}
			}
			continue
		}
		set, kind := uploadSetting(name)
		if set == nil {
			fault(name, "is no parameter of this call; it has %s", strings.Join(uploadSettings(), ", "))
			continue
		}
		if len(values) != 1 {
			fault(name, "is there %d times", len(values))
			continue
		}
		if err := set(values[0], o); err != nil {
			fault(name, "%v; it is to be %s", err, kind)
		}
	}
	slices.SortFunc(bad, func(a, b *purge.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return bad
}

// uploadSettings are the names that apply knows.
func uploadSettings() []string {
	names := []string{"config", "vm_config", "upstreams", "keys", "maps", "rollout", "by", "shadow"}
	for _, o := range functionWords() {
		names = append(names, o.name)
	}
	for _, o := range functionLimits() {
		names = append(names, "limits."+o.name)
	}
	return names
}

// uploadSetting returns how a setting is read, and what it takes.
func uploadSetting(name string) (set func(string, *functionOptions) error, kind string) {
	switch name {
	case "config":
		return func(text string, o *functionOptions) error { o.Config = text; return nil }, "text"
	case "vm_config":
		return func(text string, o *functionOptions) error { o.VMConfig = text; return nil }, "text"
	}
	for _, o := range functionWords() {
		if o.name == name {
			return o.set, o.kind
		}
	}
	for _, l := range functionLimits() {
		if "limits."+l.name == name {
			return func(text string, o *functionOptions) error { return l.set(text, &o.Limits) }, l.kind
		}
	}
	return nil, ""
}

// uploadFolder is where uploads are kept; "" is nowhere.
//
// A function is two files, and the record is the one that counts: it has the
// module's hash. A candidate is two more, NAME.candidate.json and .wasm. A new module is written beside the old as NAME.new.wasm, then
// the record, then the module takes its name. Wherever that ends, the record
// leads to a module that is whole.
type uploadFolder string

// openUploads reads the folder, and clears what a crash has left there.
func openUploads(dir string, log *slog.Logger) (*uploadFolder, map[string]*upload, error) {
	folder, all := uploadFolder(dir), make(map[string]*upload)
	if dir == "" {
		return &folder, all, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		base, candidate := strings.CutSuffix(name, candidateSuffix)
		if _, err := parseFunctionName(base); !ok || err != nil {
			continue
		}
		u := folder.open(name)
		if u.broken == nil && candidate != (u.Rollout != nil) {
			u.broken = errors.New("a record of a candidate that is none")
		}
		if u.broken != nil {
			log.Error("an uploaded function cannot be read", "function", name, "error", u.broken)
		}
		all[name] = u
	}
	folder.settle(all, log)
	temporary := regexp.MustCompile(`^[a-z0-9_-]+(\.candidate)?\.(new\.)?(json|wasm)\.\d+$`)
	module := regexp.MustCompile(`^([a-z0-9_-]+(\.candidate)?)(\.new)?\.wasm$`)
	for _, e := range entries {
		of := module.FindStringSubmatch(e.Name())
		orphan := of != nil && all[of[1]] == nil
		if e.Type().IsRegular() && (orphan || temporary.MatchString(e.Name())) {
			log.Warn("what an interrupted upload has left is removed", "file", e.Name())
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, nil, err
			}
		}
	}
	return &folder, all, nil
}

func (f *uploadFolder) file(name, kind string) string {
	return filepath.Join(string(*f), name+"."+kind)
}

// open reads one record and finds its module. A fault of either is the
// upload's, not the folder's.
func (f *uploadFolder) open(name string) *upload {
	u := &upload{Name: name}
	if err := u.decode(f.file(name, "json")); err != nil {
		return &upload{Name: name, broken: fmt.Errorf("%s: %w", f.file(name, "json"), err)}
	}
	u.path = f.file(name, "wasm")
	_, err := u.read()
	next := *u
	next.path = f.file(name, "new.wasm")
	if err != nil {
		if _, other := next.read(); other == nil { // the record was its last step but one
			if err = os.Rename(next.path, u.path); err == nil {
				err = syncDir(string(*f))
			}
		}
	} else if rest := os.Remove(next.path); rest != nil && !errors.Is(rest, fs.ErrNotExist) {
		err = rest
	}
	u.broken = err
	return u
}

// decode reads a record strictly.
func (u *upload) decode(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	text, err := readBounded(file, maxRecord)
	if err != nil {
		return err
	}
	name := u.Name
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(u); err != nil {
		return fmt.Errorf("not a record of a function: %w", err)
	}
	if u.Name != name || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(u.SHA256) {
		return errors.New("not the record of this function")
	}
	return nil
}

// keep puts u in the place of what was there, such that a crash leaves the old
// or the new. With no folder, it is kept in memory.
func (f *uploadFolder) keep(u *upload, module []byte) error {
	if *f == "" {
		u.module = module
		return nil
	}
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if len(text) > maxRecord {
		return fmt.Errorf("the settings take %d bytes; at most %d are kept", len(text), maxRecord)
	}
	next := f.file(u.Name, "new.wasm")
	if err := writeWhole(next, module); err != nil {
		return err
	}
	if err := writeWhole(f.file(u.Name, "json"), text); err != nil {
		return err // the next start clears what is left
	}
	u.path = f.file(u.Name, "wasm")
	if err := os.Rename(next, u.path); err != nil {
		// The record counts: the next start finds the module by its hash.
		u.path = next
	}
	return nil
}

// whole reports whether the folder has what keep put there.
func (f *uploadFolder) whole(u *upload) bool {
	if *f == "" {
		return true
	}
	kept := &upload{Name: u.Name}
	if kept.decode(f.file(u.Name, "json")) != nil || !kept.same(u) {
		return false
	}
	_, err := u.read()
	return err == nil
}

// remove forgets a function: its record first, so that a crash leaves all of
// it or an orphan.
func (f *uploadFolder) remove(name string) error {
	if *f == "" {
		return nil
	}
	if err := os.Remove(f.file(name, "json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(string(*f)); err != nil {
		return err
	}
	for _, kind := range []string{"wasm", "new.wasm"} {
		_ = os.Remove(f.file(name, kind)) // without its record it counts for nothing, and the next start clears it
	}
	return nil
}
