package admin

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// The bounds of sitemaps, the first two from sitemaps.org.
const (
	maxSitemap   = 50 << 20 // bytes of one, uncompressed
	maxSitemapIn = 50_000   // URLs, or sitemaps, of one
	maxSitemaps  = 500      // read for one warm-up
	maxNested    = 2        // indexes within one another
	maxElements  = 16       // elements within one another
	maxToken     = 64 << 10 // bytes of one tag, text or comment
	maxWarmURL   = 8 << 10  // bytes of one URL
	sitemapWait  = time.Minute
)

// sitemaps reads sitemaps, indexes of them included. What they say is anyone's
// to write: it is read piece by piece, within bounds.
type sitemaps struct {
	client *http.Client
	found  func(url string) error // stops the reading when it fails
	read   int
}

// newSitemapClient fetches from any host but those that only this machine's
// network has for itself, and follows no redirect to another host.
func newSitemapClient() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		if peer, err := netip.ParseAddrPort(address); err != nil || peer.Addr().Unmap().IsLinkLocalUnicast() {
			return errors.New("its address is of the local link") // where clouds keep credentials
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 15 * time.Second,
			MaxIdleConns: 4, IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			DisableCompression: true, // a coding is taken off here, within bounds
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 5 {
				return errors.New("it redirects too often")
			}
			if !strings.EqualFold(r.URL.Hostname(), via[0].URL.Hostname()) {
				return errors.New("it redirects to another host")
			}
			return nil
		},
	}
}

// follow reads the sitemap at raw and those it lists.
func (s *sitemaps) follow(ctx context.Context, raw string, nested int) error {
	if s.read++; s.read > maxSitemaps {
		return fmt.Errorf("more than %d sitemaps", maxSitemaps)
	}
	at, err := url.Parse(raw)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || len(raw) > maxWarmURL {
		return errors.New("a sitemap's URL is not http://host/path or https://host/path")
	}
	var more []string
	err = s.fetch(ctx, raw, func(index bool, loc string) error {
		if !index {
			return s.found(loc)
		}
		to, err := url.Parse(loc)
		switch {
		case nested >= maxNested:
			return errors.New("indexes of sitemaps within indexes, too deep")
		case err != nil || !strings.EqualFold(to.Hostname(), at.Hostname()):
			return errors.New("an index lists a sitemap of another host")
		case len(more) >= maxSitemaps:
			return fmt.Errorf("more than %d sitemaps", maxSitemaps)
		}
		more = append(more, loc)
		return nil
	})
	for i := 0; err == nil && i < len(more); i++ {
		err = s.follow(ctx, more[i], nested+1)
	}
	return err
}

// fetch reads one sitemap and passes on what it lists.
func (s *sitemaps) fetch(ctx context.Context, raw string, listed func(index bool, loc string) error) error {
	ctx, cancel := context.WithTimeout(ctx, sitemapWait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return errors.New("a sitemap's URL cannot be asked for")
	}
	r.Header.Set("User-Agent", "seawall (sitemap)")
	r.Header.Set("Accept-Encoding", "gzip")
	resp, err := s.client.Do(r)
	if err != nil {
		return fmt.Errorf("sitemap: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("sitemap %s: status %d", shorten(raw), resp.StatusCode)
	}
	body, err := unzip(resp.Body)
	if err == nil {
		err = readSitemap(body, listed)
	}
	if err != nil {
		return fmt.Errorf("sitemap %s: %w", shorten(raw), err)
	}
	return nil
}

// unzip takes gzip off, once or, for a .gz that was sent with a coding, twice.
func unzip(r io.Reader) (*bounded, error) {
	in := bufio.NewReader(r)
	for range 2 {
		if magic, _ := in.Peek(2); len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
			break
		}
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReader(z)
	}
	return &bounded{in: in, most: maxSitemap}, nil
}

// bounded gives bytes one at a time, up to a bound for all and one for each
// token: a decoder keeps a token whole.
type bounded struct {
	in         *bufio.Reader
	most       int // bytes of all
	all, token int // so far
}

// ReadByte returns the next byte.
func (b *bounded) ReadByte() (byte, error) {
	if b.all++; b.all > b.most {
		return 0, fmt.Errorf("larger than %d bytes", b.most)
	}
	if b.token++; b.token > maxToken {
		return 0, fmt.Errorf("has a tag or text of more than %d bytes", maxToken)
	}
	return b.in.ReadByte()
}

// Read is there for the decoder's sake, which uses ReadByte.
func (b *bounded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := b.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

// readSitemap reads a sitemap, an index of sitemaps, or a text of one URL a
// line.
func readSitemap(b *bounded, listed func(index bool, loc string) error) error {
	for n := 1; ; n++ {
		head, err := b.in.Peek(n)
		if err != nil {
			return errors.New("is empty")
		}
		switch c := head[n-1]; {
		case c == '<':
			return readXML(b, listed)
		case c > ' ' && c < 0x7f:
			return readLines(b, listed)
		case n == maxSpace || c < ' ' && c != '\t' && c != '\n' && c != '\r':
			return errors.New("is neither XML nor a list of URLs")
		}
	}
}

// maxSpace is what may stand before a sitemap's first mark: white space, and a
// byte order mark.
const maxSpace = 256

// readLines reads one URL a line.
func readLines(b *bounded, listed func(index bool, loc string) error) error {
	var line []byte
	for {
		c, err := b.ReadByte()
		if err != nil && err != io.EOF {
			return err
		}
		if err == nil && c != '\n' {
			line = append(line, c)
			continue
		}
		b.token = 0
		if text := strings.TrimSpace(strings.TrimPrefix(string(line), "\ufeff")); text != "" {
			if err := listed(false, text); err != nil {
				return err
			}
		}
		if line = line[:0]; err != nil {
			return nil
		}
	}
}

// readXML reads urlset and sitemapindex. Raw tokens, because the decoder's
// others remember every element that is open.
func readXML(b *bounded, listed func(index bool, loc string) error) error {
	d := xml.NewDecoder(b)
	var open [maxElements]string
	depth, count := 0, 0
	var loc strings.Builder
	for {
		b.token = 0
		t, err := d.RawToken()
		if err == io.EOF && depth == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("is not XML: %w", err)
		}
		inside := depth == 3 && open[2] == "loc" && (open[0] == "urlset" && open[1] == "url" || open[0] == "sitemapindex" && open[1] == "sitemap")
		switch t := t.(type) {
		case xml.StartElement:
			if depth == maxElements {
				return errors.New("has elements within elements, too deep")
			}
			if depth == 0 && t.Name.Local != "urlset" && t.Name.Local != "sitemapindex" {
				return fmt.Errorf("begins with <%s>, not <urlset> or <sitemapindex>", shorten(t.Name.Local))
			}
			open[depth] = t.Name.Local
			depth++
			loc.Reset()
		case xml.CharData:
			if inside && loc.Len() <= maxWarmURL {
				loc.Write(t)
			}
		case xml.EndElement:
			if depth == 0 || open[depth-1] != t.Name.Local {
				return errors.New("closes an element that is not open")
			}
			depth--
			if !inside {
				break
			}
			if count++; count > maxSitemapIn {
				return fmt.Errorf("lists more than %d", maxSitemapIn)
			}
			if err := listed(open[0] == "sitemapindex", strings.TrimSpace(loc.String())); err != nil {
				return err
			}
		}
	}
}
