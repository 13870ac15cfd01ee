package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"net/http"
	"strconv"

	"github.com/quic-go/quic-go/http3"
)

// runBare serves, until in ends, what a node would answer with the least that Go
// can do: a handler that writes the same bytes by net/http and quic-go, with no
// cache, no log and no metrics. It is the floor that a node is measured from.
func runBare(ctx context.Context, args []string, in io.Reader) error {
	f := flag.NewFlagSet("bare", flag.ContinueOnError)
	clear := f.String("http", "", "where to listen for clear HTTP/1.1 and HTTP/2")
	secure := f.String("https", "", "where to listen for TLS, and for HTTP/3")
	cert := f.String("cert", "", "the certificate")
	key := f.String("key", "", "its key")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := untilEOF(ctx, in)
	defer cancel()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	noise := newPatterns()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeBare(w, r, noise) })
	conf := &tls.Config{Certificates: []tls.Certificate{pair}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	plain := &http.Server{Addr: *clear, Handler: handler, Protocols: protocols}
	tlsServer := &http.Server{Addr: *secure, Handler: handler, Protocols: protocols, TLSConfig: conf}
	quic := &http3.Server{Addr: *secure, Handler: handler, TLSConfig: http3.ConfigureTLSConfig(conf)}
	ends := make(chan error, 3)
	go func() { ends <- plain.ListenAndServe() }()
	go func() { ends <- tlsServer.ListenAndServeTLS("", "") }()
	go func() { ends <- quic.ListenAndServe() }()
	waiting := 3
	select {
	case err = <-ends:
		waiting--
	case <-ctx.Done():
	}
	err = errors.Join(err, plain.Close(), tlsServer.Close(), quic.Close())
	for range waiting {
		<-ends // they end because of the Close above
	}
	return err
}

// writeBare answers with the object of the path and the fields that the node's hit
// has, of the same length: its name here has as many letters.
func writeBare(w http.ResponseWriter, r *http.Request, noise patterns) {
	o, err := parseObject(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/octet-stream"}
	h["Content-Length"] = []string{strconv.Itoa(o.size)}
	h["Cache-Control"] = []string{"public, max-age=3600"}
	h["Etag"] = []string{o.etag()}
	h["Last-Modified"] = []string{"Thu, 01 Jan 2026 00:00:00 GMT"}
	h["Age"] = []string{"1"}
	h["Cache-Status"] = []string{"nethttp; hit; ttl=3599"}
	h["Via"] = []string{"1.1 nethttp"}
	_, _ = w.Write(noise.body(o))
}
