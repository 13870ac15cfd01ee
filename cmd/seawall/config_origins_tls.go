package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"seawall/origin"
)

// originTLSSettings are what https origins must show and are shown.
type originTLSSettings struct {
	CA, Cert, Key filePath
	ServerName    string
}

// filePath is a path and where it was written.
type filePath struct {
	path         string
	line, column int
}

func originTLSKeys() []key[originTLSSettings] {
	type s = originTLSSettings
	return []key[s]{
		{name: "ca", takes: fileAt(func(s *s) *filePath { return &s.CA }),
			meaning: "the authorities that alone are believed; without it, the system's"},
		{name: "cert", takes: fileAt(func(s *s) *filePath { return &s.Cert }),
			meaning: "the certificate that origins are shown, its issuers behind it; without it, none"},
		{name: "key", takes: fileAt(func(s *s) *filePath { return &s.Key }),
			meaning: "its key"},
		{name: "server_name", takes: one("a host name", parseServerName, func(s *s) *string { return &s.ServerName }),
			meaning: "the name asked for and verified; without it, host_header if that is a name, else the origin's own"},
	}
}

const pemKind = "the path of a PEM file"

func fileAt[T any](field func(*T) *filePath) value[T] {
	return value[T]{kind: pemKind, looks: single(pemKind, parseFile), set: func(d *decoder, n ast.Node, name string, into *T) {
		text, ok := d.text(n, pemKind)
		if !ok {
			return
		}
		path, err := parseFile(text)
		if err != nil {
			d.misfit(n, name, pemKind, err)
			return
		}
		at := n.GetToken().Position
		*field(into) = filePath{path, at.Line, at.Column}
	}}
}

func parseServerName(s string) (string, error) {
	if !validHost(s) {
		return "", fmt.Errorf("%s is no host name", show(s))
	}
	return s, nil
}

// none reports whether nothing is set.
func (t *originTLSSettings) none() bool { return *t == originTLSSettings{} }

// digest is a hash of the files' content, to tell if a reload has others. Files
// that cannot be read count as empty; load says so.
func (t *originTLSSettings) digest() [sha256.Size]byte {
	sum := sha256.New()
	for _, f := range []filePath{t.CA, t.Cert, t.Key} {
		var text []byte
		if f.path != "" {
			text, _ = readSecret(f.path)
		}
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// fileFault says which file of origin_tls cannot be used, and why.
type fileFault struct {
	at  filePath
	err error
	fix string
}

func (f *fileFault) Error() string {
	return fmt.Sprintf("%s cannot be used: %v; %s", f.at.path, reason(f.err), f.fix)
}

func (f *fileFault) Unwrap() error { return f.err }

// reason is err without what names the file a second time, and without hints.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	text, _, _ := strings.Cut(err.Error(), " (hint:")
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return errors.New(text)
}

// load reads the files. It returns nil without any settings; errors are
// *fileFault.
func (t *originTLSSettings) load() (*tls.Config, error) {
	if t.none() {
		return nil, nil
	}
	for _, f := range []filePath{t.CA, t.Cert, t.Key} {
		if f.path == "" {
			continue
		}
		if _, err := readSecret(f.path); err != nil { // bounded, and no pipe
			return nil, &fileFault{f, err, "give a PEM file that the node may read"}
		}
	}
	if _, err := origin.TLSFiles(t.CA.path, "", "", ""); err != nil {
		return nil, &fileFault{t.CA, err, "give the certificates of the authorities as PEM (-----BEGIN CERTIFICATE-----)"}
	}
	made, err := origin.TLSFiles(t.CA.path, t.Cert.path, t.Key.path, t.ServerName)
	if err != nil {
		return nil, &fileFault{t.Cert, err, "give PEM files of one certificate and of its key"}
	}
	return made, nil
}

// bare is t without the places in the file, which say nothing about a pool.
func (t originTLSSettings) bare() originTLSSettings {
	for _, f := range []*filePath{&t.CA, &t.Cert, &t.Key} {
		f.line, f.column = 0, 0
	}
	return t
}

// tryOriginTLS reads the files of every pool's origin_tls that are here. Those
// that are not, or that only the node may read, are returned; the error is
// *faults.
func (s *settings) tryOriginTLS() (absent []error, err error) {
	list := &faults{file: s.path}
	seen := make(map[originTLSSettings]bool) // a route may have its site's
	for _, p := range s.pools() {
		if seen[p.from.TLS] {
			continue
		}
		seen[p.from.TLS] = true
		_, err := p.from.TLS.load()
		var bad *fileFault
		switch {
		case !errors.As(err, &bad):
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			absent = append(absent, bad.err)
		default:
			list.list = append(list.list, fault{bad.at.line, bad.at.column, bad.Error()})
		}
	}
	if len(list.list) > 0 {
		return absent, list
	}
	return absent, nil
}
