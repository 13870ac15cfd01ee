package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func made(t *testing.T, at time.Time, names ...string) *tls.Certificate {
	t.Helper()
	text, err := makeOwn(names, at)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

func TestCertificateIsChosenByName(t *testing.T) {
	now := time.Now()
	c := &certificates{named: make(map[string][]*tls.Certificate)}
	c.add(made(t, now, "first.example"), nil)
	c.add(made(t, now, "*.wild.example", "wild.example"), nil)
	c.add(made(t, now, "exact.wild.example"), nil)
	c.add(made(t, now, "issued.example"), []string{"given.example", "*.given.example"})
	for _, row := range []struct {
		server string
		want   string
	}{
		{"", "first.example"},
		{"unknown.example", "first.example"},
		{"wild.example", "*.wild.example wild.example"},
		{"a.wild.example", "*.wild.example wild.example"},
		{"A.Wild.Example.", "*.wild.example wild.example"},
		{"exact.wild.example", "exact.wild.example"},
		{"a.b.wild.example", "first.example"},
		{"given.example", "issued.example"},
		{"x.given.example", "issued.example"},
		{"issued.example", "first.example"},
	} {
		got := c.choose(&tls.ClientHelloInfo{ServerName: row.server, SupportedVersions: []uint16{tls.VersionTLS13}})
		if names := strings.Join(issuedFor(got.Leaf), " "); names != row.want {
			t.Errorf("%q: got the one for %s, want %s", row.server, names, row.want)
		}
	}
}

// Of two certificates for a name, a client is shown one that it can use.
func TestCertificateIsChosenByWhatTheClientCanUse(t *testing.T) {
	plain, other := made(t, time.Now(), "a.example"), made(t, time.Now(), "a.example")
	other.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PSSWithSHA256} // no client below has it
	c := &certificates{named: make(map[string][]*tls.Certificate)}
	c.add(other, nil)
	c.add(plain, nil)
	hello := &tls.ClientHelloInfo{
		ServerName: "a.example", SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	}
	if got := c.choose(hello); got != plain {
		t.Error("got the one that the client cannot use")
	}
	hello.SignatureSchemes = nil
	hello.SupportedVersions = []uint16{tls.VersionTLS12}
	if got := c.choose(hello); got == nil {
		t.Error("a client that can use none: got nothing, want the first, so that it is told why")
	}
}

func TestSelfSigned(t *testing.T) {
	now := time.Now()
	s := siteOver("http://a")
	s.Sites[0].Hosts = []string{"shop.example", "*.shop.example", "192.0.2.1", "[2001:db8::1]", "under_score.example"}
	names := ownNames(s)
	d := &data{path: t.TempDir()}
	first, err := selfSigned(d, nil, names, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(first.Leaf)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "shop.example", "192.0.2.1", "2001:db8::1", "under_score.example"} {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("for %s: %v", name, err)
		}
	}
	if _, err := first.Leaf.Verify(x509.VerifyOptions{DNSName: "x.shop.example", Roots: roots}); err == nil {
		t.Error("it is good for names that no site has")
	}
	if life := first.Leaf.NotAfter.Sub(now); life < 364*24*time.Hour || life > 366*24*time.Hour {
		t.Errorf("valid for %s, want a year", life)
	}
	damage := func() error { return os.WriteFile(filepath.Join(d.path, ownFile), []byte("-----"), 0o644) }
	for _, c := range []struct {
		name   string
		before func() error
		old    *tls.Certificate
		names  []string
		at     time.Time
		same   bool
	}{
		{"kept in memory", nil, first, names, now, true},
		{"kept in the folder", nil, nil, names, now, true},
		{"close to its end", nil, first, names, now.Add(340 * 24 * time.Hour), false},
		{"expired, from the folder", nil, nil, names, now.Add(800 * 24 * time.Hour), false},
		{"before its time", nil, first, names, now.Add(-2 * time.Hour), false},
		{"other names", nil, first, names[1:], now, false},
		{"a damaged file", damage, nil, names, now, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				if err := c.before(); err != nil {
					t.Fatal(err)
				}
			}
			got, err := selfSigned(d, c.old, c.names, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if same := got.Leaf.Equal(first.Leaf); same != c.same || !lasts(got.Leaf, c.names, c.at) {
				t.Errorf("the same one: %v, want %v; it lasts: %v", same, c.same, lasts(got.Leaf, c.names, c.at))
			}
		})
	}
	if _, err := selfSigned(&data{path: filepath.Join(d.path, ownFile, "x")}, nil, names, now); err == nil {
		t.Error("a folder that cannot be written: no error")
	}
}

func TestExpiredCertificateIsSaid(t *testing.T) {
	var log bytes.Buffer
	c := &certificates{named: make(map[string][]*tls.Certificate)}
	c.add(made(t, time.Now().Add(-2*ownLife), "late.example"), nil)
	c.say(slog.New(slog.NewTextHandler(&log, nil)), time.Now())
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "expired") || !strings.Contains(got, "late.example") {
		t.Errorf("got %q, want a warning", got)
	}
}

// What a reload cannot read changes neither the certificates nor the sites.
func TestReloadWithoutItsCertificateChangesNothing(t *testing.T) {
	d, err := openData("")
	if err != nil {
		t.Fatal(err)
	}
	s := siteOver("http://127.0.0.1:1")
	s.Listen.HTTPS = "127.0.0.1:0"
	n, err := newNode(s, d, &terminal{new(output), new(output)})
	if err != nil {
		t.Fatal(err)
	}
	ends := n.serve()
	defer func() {
		n.close()
		if err := errors.Join(<-ends, d.Close()); err != nil {
			t.Error(err)
		}
	}()
	before, certs := n.current.Load(), n.keys.now.Load()
	bad := siteOver("http://127.0.0.1:2")
	bad.TLS.Certificates = []certificateSettings{{Cert: "/nope.pem", Key: "/nope.key"}}
	if err := n.reload(bad); err == nil || !strings.Contains(err.Error(), "/nope.pem") {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if n.current.Load() != before || n.keys.now.Load() != certs {
		t.Error("something changed")
	}
	again := *s
	if err := n.reload(&again); err != nil {
		t.Fatal(err)
	}
	if now := n.keys.now.Load(); !now.same(certs) {
		t.Error("a reload without a reason made another self-signed certificate")
	}
}
