package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// certificates are what TLS clients are shown, by the name they ask for. They
// never change once made.
type certificates struct {
	all   []*tls.Certificate            // never empty; the first is for names that none has
	named map[string][]*tls.Certificate // by "example.com" and "*.example.com"
	own   *tls.Certificate              // the self-signed one; nil when others were given
}

// add takes a certificate for these names, or else for those it was issued for.
func (c *certificates) add(one *tls.Certificate, names []string) {
	c.all = append(c.all, one)
	if len(names) == 0 {
		names = issuedFor(one.Leaf)
	}
	for _, name := range names {
		name = strings.ToLower(name)
		c.named[name] = append(c.named[name], one)
	}
}

// choose returns the certificate for a client: one for the very name, else one
// for *. and the name's parent, else the first. Of several for a name, as of
// two kinds of key, it is the first that the client can use.
func (c *certificates) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	found := c.named[name]
	if _, parent, ok := strings.Cut(name, "."); ok && len(found) == 0 {
		found = c.named["*."+parent]
	}
	if len(found) == 0 {
		return c.all[0]
	}
	for _, one := range found {
		if hello.SupportsCertificate(one) == nil {
			return one
		}
	}
	return found[0]
}

// same reports whether both show the same certificates in the same order.
func (c *certificates) same(other *certificates) bool {
	return slices.EqualFunc(c.all, other.all, func(a, b *tls.Certificate) bool { return a.Leaf.Equal(b.Leaf) })
}

// say logs what clients are shown.
func (c *certificates) say(log *slog.Logger, now time.Time) {
	for _, one := range c.all {
		args := []any{
			"names", strings.Join(issuedFor(one.Leaf), " "), "until", one.Leaf.NotAfter.Format(time.DateOnly),
			"sha256", fingerprint(one.Leaf),
		}
		switch {
		case one == c.own:
			log.Info("self-signed certificate: clients must be told to trust it, as curl -k does", args...)
		case now.After(one.Leaf.NotAfter):
			log.Warn("certificate has expired: clients will refuse it", args...)
		default:
			log.Info("certificate", args...)
		}
	}
}

// fingerprint is a certificate's SHA-256 as browsers and openssl show it.
func fingerprint(leaf *x509.Certificate) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(leaf.Raw)), " ", ":")
}

// issuedFor are the names and addresses of a certificate, sorted.
func issuedFor(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			names = append(names, addr.Unmap().String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// load reads the pair. Neither file may be a pipe, which might never end.
func (c certificateSettings) load() (*tls.Certificate, error) {
	cert, err := readSecret(c.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readSecret(c.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", c.Cert, c.Key, err)
	}
	return &pair, nil
}

// keyring has the certificates of the moment. Connections take theirs from it,
// so that a change reaches the next handshake.
type keyring struct {
	data *data
	now  atomic.Pointer[certificates]
}

// read makes the certificates that s asks for, and does not use them yet.
func (k *keyring) read(s *settings) (*certificates, error) {
	c := &certificates{named: make(map[string][]*tls.Certificate)}
	for _, from := range s.TLS.Certificates {
		one, err := from.load()
		if err != nil {
			return nil, fmt.Errorf("certificate: %w (hint: give PEM files of one certificate, its issuers behind it, and of its key)", err)
		}
		c.add(one, from.Names)
	}
	if len(c.all) > 0 {
		return c, nil
	}
	var old *tls.Certificate
	if was := k.now.Load(); was != nil {
		old = was.own
	}
	own, err := selfSigned(k.data, old, ownNames(s), time.Now())
	if err != nil {
		return nil, fmt.Errorf("self-signed certificate: %w (hint: --cert FILE --key FILE gives another)", err)
	}
	c.own = own
	c.add(own, nil)
	return c, nil
}

// config is what TLS listeners work by.
func (k *keyring) config(s tlsSettings) *tls.Config {
	return &tls.Config{
		MinVersion: s.MinVersion,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.now.Load().choose(hello), nil
		},
	}
}
