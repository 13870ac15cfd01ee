package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// demoCommand is `seawall demo`.
type demoCommand struct {
	HTTP  *string `name:"http" placeholder:"ADDR" help:"Where the node listens (127.0.0.1:8080, or a free port)."`
	HTTPS *string `name:"https" placeholder:"ADDR" help:"Where it listens for HTTPS and HTTP/3 (127.0.0.1:8443, or a free port); off for none."`
	Admin *string `placeholder:"ADDR" help:"Where its admin API listens (127.0.0.1:9090, or a free port)."`
	Plain bool    `name:"no-functions" help:"Leave out the edge functions, which the go command builds from their source."`
}

// Help is shown under the command's flags.
func (*demoCommand) Help() string {
	return "Nothing is kept and nothing leaves this machine. Ctrl-C ends it.\n\nExample:\n  seawall demo"
}

// Run serves the sample through a node until a signal ends it.
func (c *demoCommand) Run(t *terminal) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	from, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	sample := &http.Server{Handler: sampleOrigin(), ReadHeaderTimeout: 10 * time.Second}
	go sample.Serve(from) // until it is closed
	defer sample.Close()

	s := defaultSettings()
	s.Sites = []siteSettings{loneSite([]string{"http://" + from.Addr().String()})}
	s.Cache.Memory = 64 * mib
	s.Listen.HTTP, s.Listen.HTTPS, s.Listen.Admin = unused("127.0.0.1:8080"), unused("127.0.0.1:8443"), unused("127.0.0.1:9090")
	var bad []string
	flag(&bad, "--http", c.HTTP, "host:port, as 127.0.0.1:8080", parseAddr, &s.Listen.HTTP)
	flag(&bad, "--https", c.HTTPS, "host:port, or off", parseAddrOrOff, &s.Listen.HTTPS)
	flag(&bad, "--admin", c.Admin, "host:port, or off", parseAddrOrOff, &s.Listen.Admin)
	if len(bad) > 0 {
		return &usageError{bad[0]}
	}
	d, err := openData("")
	if err != nil {
		return err
	}
	n, err := newNode(s, d, t)
	if err != nil {
		return err
	}
	ends := n.serve()
	n.announce(d, limitMemory(s.Cache.Memory))
	n.tour(from.Addr())
	f := &demoFunctions{n: n, plain: s}
	f.now.Store(s)
	if !c.Plain {
		defer f.begin()()
	}
	return n.run(signals, ends, 5*time.Second, func() (*settings, error) { return f.now.Load(), nil })
}

// unused is addr if it can be listened on, by TCP and UDP, else a free port of
// this machine.
func unused(addr string) string {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	u.Close()
	return addr
}

// tour prints what to try, and what it shows.
func (n *node) tour(from net.Addr) {
	url := n.clearURL()
	fmt.Fprintf(n.t.out, `
The sample origin is http://%s; the node in front of it is %s.
Cache-Status tells what the node did. Each request is a line below. Try:

  miss, then hit    curl -i %[2]s/page         (twice)
  stale             curl -i %[2]s/page         (10 s later: at once, and refreshed behind)
  revalidation      curl -i %[2]s/checked      (twice, 2 s apart: the origin says 304)
  range             curl -s -o /dev/null %[2]s/file; curl -i -r 100-119 %[2]s/file
  one miss for all  for i in 1 2 3; do curl -s -o /dev/null %[2]s/slow & done; wait
  a stream          curl -N %[2]s/stream
  a variant each    curl -i -H 'Accept-Language: fr' %[2]s/greeting
  never stored      curl -i -d name=you %[2]s/form
`, from, url)
	if secure := n.secureURL(); secure != "" {
		fmt.Fprintf(n.t.out, `
The same by TLS; -k because the certificate is its own. Alt-Svc leads to HTTP/3:

  HTTP/2            curl -ik --http2 %[1]s/page
  HTTP/1.1          curl -ik --http1.1 %[1]s/page
  HTTP/3            curl -ik --http3-only %[1]s/page   (if "curl --version" names HTTP3)
`, secure)
	}
	if n.side != nil {
		admin := shownURL("http", n.side.Addrs()[0])
		fmt.Fprintf(n.t.out, "\n  the figures       curl %[1]s/v1/stats\n  a purge           seawall purge %[2]s/page --node %[1]s\n", admin, url)
	}
	fmt.Fprintln(n.t.out, "\nCtrl-C ends it.")
}
