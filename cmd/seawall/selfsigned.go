package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	ownLife  = 365 * 24 * time.Hour
	ownRenew = 30 * 24 * time.Hour // one that ends sooner is made anew at a start or reload
	ownFile  = "self-signed.pem"   // in the data folder: the certificate, and its key
)

// ownNames is what a self-signed certificate is for: this machine by its
// names, and every exact host of the sites. Sorted.
func ownNames(s *settings) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && validHost(name) {
		names = append(names, strings.ToLower(name))
	}
	for _, site := range s.Sites {
		for _, host := range site.Hosts {
			host = strings.Trim(host, "[]")
			if addr, err := netip.ParseAddr(host); err == nil {
				host = addr.WithZone("").Unmap().String()
			}
			if !strings.HasPrefix(host, "*") {
				names = append(names, host)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// selfSigned returns old, or what the data folder keeps, if that is for these
// names and lasts; else it makes a new certificate, and keeps it there.
func selfSigned(d *data, old *tls.Certificate, names []string, now time.Time) (*tls.Certificate, error) {
	if old != nil && lasts(old.Leaf, names, now) {
		return old, nil
	}
	file := filepath.Join(d.path, ownFile)
	if d.path != "" && old == nil {
		// One that cannot be read is replaced: nothing depends on it.
		if kept, err := os.ReadFile(file); err == nil {
			if pair, err := tls.X509KeyPair(kept, kept); err == nil && lasts(pair.Leaf, names, now) {
				return &pair, os.Chmod(file, 0o600)
			}
		}
	}
	text, err := makeOwn(names, now)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if d.path != "" {
		err = writeWhole(file, text)
	}
	return &pair, err
}

// lasts reports whether a self-signed certificate is for just these names and
// need not be renewed yet.
func lasts(leaf *x509.Certificate, names []string, now time.Time) bool {
	return slices.Equal(issuedFor(leaf), names) && !now.Before(leaf.NotBefore) && now.Add(ownRenew).Before(leaf.NotAfter)
}

// makeOwn makes a key and a certificate that it signs itself, both as PEM.
func makeOwn(names []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{ // without a serial number it is given a random one
		Subject:               pkix.Name{CommonName: "Seawall, self-signed"},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(ownLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}
