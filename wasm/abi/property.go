package abi

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Bounds of what guests may set.
const (
	keyLimit = 4 << 10 // bytes of an added key part
	tagLimit = 256     // tags, and bytes of each
)

// Property returns what a guest may know by a path like "request.path" or
// "request.headers.accept", its parts separated by NUL bytes or, when there
// is none, by dots. Integers and times (nanoseconds since 1970) are eight
// bytes, little-endian; booleans one. Unknown and absent ones give false.
func (x *Exchange) Property(path string) ([]byte, bool) {
	first, rest := cut(path)
	switch first {
	case "request":
		return x.request(rest)
	case "response":
		return x.response(rest)
	case "source":
		if rest == "client_region" {
			return text(x.geo().Region)
		}
		return address(x.Facts.Source, rest)
	case "destination":
		return address(x.Facts.destination(), rest)
	case "connection":
		return x.connection(rest)
	case "plugin_name", "plugin_root_id":
		return []byte(x.Function), rest == ""
	case "seawall":
		return x.own(rest)
	}
	return nil, false
}

// cut splits off the first part of a path.
func cut(path string) (first, rest string) {
	path = strings.TrimSuffix(path, "\x00") // some SDKs end the last part, too
	if first, rest, ok := strings.Cut(path, "\x00"); ok {
		return first, rest
	}
	first, rest, _ = strings.Cut(path, ".")
	return first, rest
}

func (x *Exchange) request(path string) ([]byte, bool) {
	r := &x.Request
	first, rest := cut(path)
	target, query, _ := strings.Cut(r.Target, "?")
	switch first {
	case "path":
		return text(r.Target)
	case "url_path":
		return text(target)
	case "query":
		return []byte(query), true
	case "host":
		return text(r.Authority)
	case "scheme":
		return text(r.Scheme)
	case "method":
		return text(r.Method)
	case "headers":
		if strings.EqualFold(rest, "host") {
			return text(r.Authority)
		}
		return field(r.Header, rest)
	case "referer":
		return field(r.Header, "Referer")
	case "useragent":
		return field(r.Header, "User-Agent")
	case "id":
		return text(x.Facts.RequestID())
	case "protocol":
		return text(x.Facts.Protocol)
	case "time":
		return integer(x.Facts.Begun.UnixNano()), !x.Facts.Begun.IsZero()
	case "duration":
		return integer(int64(time.Since(x.Facts.Begun))), !x.Facts.Begun.IsZero()
	}
	return nil, false
}

func (x *Exchange) response(path string) ([]byte, bool) {
	if x.Response.Status == 0 {
		return nil, false
	}
	switch first, rest := cut(path); first {
	case "code":
		return integer(int64(x.Response.Status)), true
	case "headers":
		return field(x.Response.Header, rest)
	case "trailers":
		return field(x.Response.Trailer, rest)
	}
	return nil, false
}

func (x *Exchange) connection(name string) ([]byte, bool) {
	f := &x.Facts
	switch name {
	case "id":
		return text(f.RequestID())
	case "mtls":
		if f.MTLS {
			return []byte{1}, true
		}
		return []byte{0}, true
	case "requested_server_name":
		return text(f.ServerName)
	case "tls_version":
		names := map[uint16]string{0x301: "TLSv1", 0x302: "TLSv1.1", 0x303: "TLSv1.2", 0x304: "TLSv1.3"}
		return text(names[f.TLSVersion])
	case "negotiated_protocol":
		return text(f.ALPN)
	case "cipher":
		if f.Cipher == 0 {
			return nil, false
		}
		return text(tls.CipherSuiteName(f.Cipher))
	}
	return nil, false
}

// own returns Seawall's own properties.
func (x *Exchange) own(path string) ([]byte, bool) {
	group, name := cut(path)
	switch group + "." + name {
	case "cache.key":
		return []byte(x.Cache.Key), true
	case "cache.ttl":
		return integer(int64(x.Cache.TTL / time.Second)), x.Cache.TTL >= 0
	case "cache.tags":
		return []byte(strings.Join(x.Cache.Tags, ",")), true
	case "cache.status":
		return text(x.Cache.Status)
	case "client.address":
		return text(x.Facts.Client)
	case "site.":
		return text(x.Facts.Site)
	case "geo.country":
		return text(x.geo().Country)
	case "geo.region":
		return text(x.geo().Region)
	case "geo.city":
		return text(x.geo().City)
	case "geo.asn":
		return integer(int64(x.geo().ASN)), x.geo().ASN != 0
	}
	return nil, false
}

// geo is where the client is, looked up once at most.
func (x *Exchange) geo() Geo {
	f := &x.Facts
	if f.Locate != nil && f.Client != "" {
		f.Geo, f.Locate = f.Locate(f.Client), nil
	}
	return f.Geo
}

// SetProperty changes one of the properties that guests may set, at a stage
// where it has an effect: seawall.cache.key before the key is made, ttl and
// tags on the origin's side. The error is or wraps ErrNotFound or ErrArgument.
func (x *Exchange) SetProperty(path string, value []byte) error {
	first, rest := cut(path)
	group, name := cut(rest)
	if first != "seawall" || group != "cache" {
		if _, ok := x.Property(path); ok {
			return fmt.Errorf("%w: property %.64q is read-only", ErrArgument, path)
		}
		return ErrNotFound
	}
	origin := x.Stage == OriginRequest || x.Stage == OriginResponse
	switch name {
	case "key":
		if x.Stage != ViewerRequest || len(value) > keyLimit {
			return fmt.Errorf("%w: the key can be set at viewer_request, to %d bytes", ErrArgument, keyLimit)
		}
		x.Cache.Key, x.Cache.KeySet = string(value), true
	case "ttl":
		if !origin || len(value) != 8 {
			return fmt.Errorf("%w: the lifetime is eight bytes of seconds, on the origin's side", ErrArgument)
		}
		return x.setTTL(int64(binary.LittleEndian.Uint64(value)))
	case "tags":
		if !origin {
			return fmt.Errorf("%w: tags are set on the origin's side", ErrArgument)
		}
		return x.setTags(string(value))
	case "status":
		return fmt.Errorf("%w: the cache status is read-only", ErrArgument)
	default:
		return ErrNotFound
	}
	return nil
}

func (x *Exchange) setTTL(seconds int64) error {
	const most = 10 * 365 * 24 * 3600
	if seconds < 0 {
		return fmt.Errorf("%w: a lifetime of %d s", ErrArgument, seconds)
	}
	x.Cache.TTL = time.Duration(min(seconds, most)) * time.Second
	return nil
}

func (x *Exchange) setTags(list string) error {
	var tags []string
	for tag := range strings.SplitSeq(list, ",") {
		if tag = strings.TrimSpace(tag); tag == "" {
			continue
		}
		if len(tag) > tagLimit || len(tags) == tagLimit {
			return fmt.Errorf("%w: at most %d tags of %d bytes", ErrArgument, tagLimit, tagLimit)
		}
		if !httpguts.ValidHeaderFieldValue(tag) { // tags are kept as a field
			return fmt.Errorf("%w: tag %.64q", ErrArgument, tag)
		}
		tags = append(tags, tag)
	}
	x.Cache.Tags, x.Cache.TagsSet = tags, true
	return nil
}

func text(s string) ([]byte, bool) { return []byte(s), s != "" }

func integer(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

// field joins the lines of a field, as HTTP does.
func field(h http.Header, name string) ([]byte, bool) {
	lines, ok := h[textproto.CanonicalMIMEHeaderKey(name)]
	return []byte(strings.Join(lines, ", ")), ok
}

// address gives the address with its port, or the port alone.
func address(hostport, name string) ([]byte, bool) {
	switch name {
	case "address":
		return text(hostport)
	case "port":
		_, port, err := net.SplitHostPort(hostport)
		if err != nil {
			return nil, false
		}
		n, err := strconv.ParseUint(port, 10, 16)
		return integer(int64(n)), err == nil
	}
	return nil, false
}
