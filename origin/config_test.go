package origin

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigIsRefused(t *testing.T) {
	one := []string{"http://a"}
	tests := []struct {
		name string
		cfg  Config
		want string // of the error's words
	}{
		{"no servers", Config{}, "no servers (hint: "},
		{"duplicates", Config{Servers: []string{"http://a", "http://a/"}}, `two servers are called "http://a" (hint: `},
		{"duplicate names", Config{Backends: []Backend{{URL: "http://a", Name: "x"}, {URL: "http://b", Name: "x"}}}, `two servers are called "x"`},
		{"a name like a URL", Config{Servers: one, Backends: []Backend{{URL: "http://b", Name: "http://a"}}}, `two servers are called "http://a"`},
		{"negative weight", Config{Backends: []Backend{{URL: "http://a", Weight: -1}}}, `server "http://a": weight -1 is negative (hint: `},
		{"unknown protocol", Config{Backends: []Backend{{URL: "http://a", Protocol: "h4"}}}, `server "http://a": protocol "h4" (hint: h1, h2, h2c, h3 or auto)`},
		{"h2 in the clear", Config{Backends: []Backend{{URL: "http://a", Protocol: "h2"}}}, "h2c is HTTP/2 in the clear"},
		{"h2c over TLS", Config{Backends: []Backend{{URL: "https://a", Protocol: "h2c"}}}, "h2 is HTTP/2 over TLS"},
		{"h3 in the clear", Config{Backends: []Backend{{URL: "http://a", Protocol: "h3"}}}, "h3 needs an https:// URL"},
		{"unknown balance", Config{Servers: one, Balance: "random"}, `balance "random" (hint: round_robin, least_connections, least_time, client_hash or key_hash)`},
		{"password", Config{Servers: []string{"http://user:secret@a"}}, "user info is not allowed"},
		{"path", Config{Servers: []string{"http://a/b"}}, "a path is not allowed"},
		{"SRV with a port", Config{Servers: []string{"srv+http://a:80"}}, "the SRV record has it"},
		{"retry on 404", Config{Servers: one, Retry: Retry{On: []int{404}}}, "retry on 404"},
		{"health path", Config{Servers: one, Health: Health{Path: "health"}}, `health path "health" (hint: begin it with a slash)`},
		{"health method", Config{Servers: one, Health: Health{Path: "/", Method: "G T"}}, `health method "G T"`},
		{"cookie", Config{Servers: one, Sticky: Sticky{Cookie: "a b"}}, `sticky cookie name "a b"`},
		{"host", Config{Servers: one, Host: "a/b"}, `Host "a/b" is not a host name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.cfg)
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestTLSFiles has a server that asks for a certificate, and an authority of its
// own.
func TestTLSFiles(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Got", r.TLS.PeerCertificates[0].Subject.String())
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = discardLog()
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	cert, key := newCertificate(t)
	certFile, keyFile, empty := file("cert.pem", cert), file("key.pem", key), file("empty.pem", "nothing")
	tests := []struct {
		name, ca, cert, key string
		server              string // error's words of TLSFiles
		kind                string // of a request's error
	}{
		{"all", ca, certFile, keyFile, "", ""},
		{"no certificate", ca, "", "", "", tlsAlert},
		{"no authority", "", certFile, keyFile, "", tlsCertificate},
		{"authority is not there", dir + "/none", "", "", "no such file", ""},
		{"authority is empty", empty, "", "", "no certificate in it (hint: PEM", ""},
		{"no key", ca, certFile, "", "go together", ""},
		{"key is empty", ca, certFile, empty, "client certificate", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := TLSFiles(tt.ca, tt.cert, tt.key, "")
			if tt.server != "" {
				if err == nil || !strings.Contains(err.Error(), tt.server) {
					t.Errorf("got %v, want %q in it", err, tt.server)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg.MaxVersion = tls.VersionTLS12 // in 1.3 a client learns of a refusal later
			p := mustNew(t, Config{Servers: []string{srv.URL}, TLS: cfg})
			defer p.Close()
			if r := get(t, p); kind(r.err) != tt.kind || r.err == nil && r.header.Get("Got") != "CN=client" {
				t.Errorf("got %+v, want kind %q", r, tt.kind)
			}
		})
	}
}
