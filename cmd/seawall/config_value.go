package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"seawall/edge/rfc9111"
)

// The units of sizes.
const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

// parseSize reads a whole number and a unit: B, KiB MiB GiB TiB (1024) or KB
// MB GB TB (1000). A bare number is bytes.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiBkmgtb ")
	units := map[string]int64{
		"": 1, "b": 1, "kib": kib, "mib": mib, "gib": gib, "tib": tib,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	}
	unit, known := units[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case err != nil || !known:
		return 0, fmt.Errorf("%s is not a size", show(s))
	case n > uint64(math.MaxInt64/unit):
		return 0, fmt.Errorf("%s is too large", show(s))
	}
	return int64(n) * unit, nil
}

// showSize writes n with the largest unit of 1024 that divides it.
func showSize(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"TiB", tib}, {"GiB", gib}, {"MiB", mib}, {"KiB", kib}} {
		if n != 0 && n%u.unit == 0 {
			return strconv.FormatInt(n/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// sizes reads a size from least to most.
func sizes(least, most int64) func(string) (int64, error) {
	return func(s string) (int64, error) {
		n, err := parseSize(s)
		if err == nil && (n < least || n > most) {
			err = fmt.Errorf("%s is not between %s and %s", show(s), showSize(least), showSize(most))
		}
		return n, err
	}
}

// spans reads a duration from least to most.
func spans(least, most time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%s is not a duration", show(s))
		case d < least || d > most:
			return 0, fmt.Errorf("%s is not between %s and %s", show(s), showSpan(least), showSpan(most))
		}
		return d, nil
	}
}

// spansOr reads a duration, or a word that stands for none; none is -1.
func spansOr(word string, least, most time.Duration) func(string) (time.Duration, error) {
	read := spans(least, most)
	return func(s string) (time.Duration, error) {
		if s == word {
			return -1, nil
		}
		return read(s)
	}
}

// showSpan writes d without its zero parts.
func showSpan(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// numbers reads a whole number from least to most.
func numbers(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%s is not a whole number", show(s))
		}
		if n < least || n > most {
			return 0, fmt.Errorf("%d is not between %d and %d", n, least, most)
		}
		return n, nil
	}
}

// numbersOrOff reads a whole number from least to most, or off, which is 0.
func numbersOrOff(least, most int) func(string) (int, error) {
	read := numbers(least, most)
	return func(s string) (int, error) {
		if s == "off" {
			return 0, nil
		}
		return read(s)
	}
}

// parseVersion reads a version of TLS.
func parseVersion(s string) (uint16, error) {
	switch s {
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("%s is none of the choices", show(s))
}

func parseFraction(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return 0, fmt.Errorf("%s is not between 0 and 1", show(s))
	}
	return f, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", show(s))
}

// words reads one of a few words.
func words(all ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(all, s) {
			return "", fmt.Errorf("%s is none of the choices", show(s))
		}
		return s, nil
	}
}

func parseSetCookie(s string) (rfc9111.SetCookie, error) {
	c, err := rfc9111.ParseSetCookie(s)
	if err != nil {
		return c, fmt.Errorf("%s is none of the choices", show(s))
	}
	return c, nil
}

func parseLevel(s string) (slog.Level, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[s]
	if !ok {
		return 0, fmt.Errorf("%s is none of the choices", show(s))
	}
	return level, nil
}

// parseAddr reads host:port to listen on; the host may be absent.
func parseAddr(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%s is not an address", show(s))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %s is not between 0 and 65535", show(port))
	} else if host != "" && !validHost(host) {
		return "", fmt.Errorf("%s is not an address", show(s))
	} else {
		return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
	}
}

func parseAddrOrOff(s string) (string, error) {
	if s == "off" {
		return "", nil
	}
	return parseAddr(s)
}

// parseOrigin reads an origin's URL: a scheme, a host and maybe a port; before
// the scheme srv+ if DNS knows hosts and ports.
func parseOrigin(whole string) (string, error) {
	s, srv := strings.CutPrefix(whole, "srv+")
	url, err := parseOriginURL(s)
	switch {
	case err != nil || !srv:
		return url, err
	case strings.Count(url, ":") > 1:
		return "", fmt.Errorf("%s has a port, which is for the SRV records to say", show(whole))
	}
	return "srv+" + url, nil
}

func parseOriginURL(s string) (string, error) {
	if _, rest, found := strings.Cut(s, "://"); found && strings.Contains(rest, "@") {
		return "", errors.New("a URL with a user name or password") // and never shown
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || !validHost(u.Hostname()):
		return "", fmt.Errorf("%s is not the URL of an origin", show(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%s has a scheme that is neither http nor https", show(s))
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, strings.Contains(s, "#"):
		return "", fmt.Errorf("%s has more than scheme, host and port", show(s))
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%s has a port that is not between 1 and 65535", show(s))
		}
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// parseHost reads a site's host name, exact or *.example.com.
func parseHost(s string) (string, error) {
	name := strings.TrimPrefix(s, "*.")
	switch {
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("%s has a * that is not its whole first label", show(s))
	case s != strings.ToLower(s):
		return "", fmt.Errorf("%s has capitals; host names are written small: %q", show(s), strings.ToLower(s))
	case net.ParseIP(name) == nil && strings.Contains(name, ":") && !strings.HasPrefix(name, "["):
		return "", fmt.Errorf("%s has a port; a site answers its names on every port", show(s))
	case !validHost(strings.Trim(name, "[]")):
		return "", fmt.Errorf("%s is not a host name", show(s))
	}
	return s, nil
}

// parseHostHeader reads what the origin is told as Host. The result is what
// origin.Config.Host takes.
func parseHostHeader(s string) (string, error) {
	host := s
	if name, port, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", fmt.Errorf("%s has no port number behind its colon", show(s))
		}
		host = name
	}
	if !validHost(strings.Trim(host, "[]")) {
		return "", fmt.Errorf("%s is no host name", show(s))
	}
	return s, nil
}

// validHost reports whether s can be a name or address: letters, digits, dots,
// dashes and underscores, labels of 1 to 63, 253 in all; or an IP address.
func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return true
}

// parseName reads the name of a site or node: what labels and header fields
// can carry.
func parseName(s string) (string, error) {
	if s == "" || len(s) > 64 || !httpguts.ValidHeaderFieldName(s) {
		return "", fmt.Errorf("%s is not a name of 1 to 64 letters, digits, dots and dashes", show(s))
	}
	return s, nil
}

// The bounds of an admin token.
const (
	minToken = 16
	maxToken = 512
)

// parseToken reads an admin token and returns its SHA-256, which is all that
// is kept; or the hash itself, behind sha256:. Errors do not repeat it.
func parseToken(s string) (hash [sha256.Size]byte, err error) {
	if digits, ok := strings.CutPrefix(s, "sha256:"); ok {
		if n, err := hex.Decode(hash[:], []byte(digits[:min(len(digits), 2*len(hash))])); err != nil || n != len(hash) || len(digits) != 2*n {
			return hash, fmt.Errorf("sha256: is not followed by %d hexadecimal digits", 2*len(hash))
		}
		return hash, nil
	}
	switch {
	case len(s) < minToken || len(s) > maxToken:
		return hash, fmt.Errorf("a token of %d characters is too short or too long", len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return hash, errors.New("a token with white space, controls or letters beyond ASCII cannot be sent")
	}
	return sha256.Sum256([]byte(s)), nil
}

// parsePath reads a path pattern.
func parsePath(s string) (string, error) {
	switch {
	case !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "*"):
		return "", fmt.Errorf("%s does not begin with / or *", show(s))
	case strings.ContainsAny(s, "?#"):
		return "", fmt.Errorf("%s has a ? or #; patterns are of the path alone", show(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "", fmt.Errorf("%s has white space or controls", show(s))
	case len(s) > 2048:
		return "", fmt.Errorf("%s is longer than 2048 bytes", show(s))
	}
	return s, nil
}

func parseField(s string) (string, error) {
	if !httpguts.ValidHeaderFieldName(s) {
		return "", fmt.Errorf("%s is not a field name", show(s))
	}
	return s, nil
}

func parseFieldValue(s string) (string, error) {
	if !httpguts.ValidHeaderFieldValue(s) || strings.TrimSpace(s) != s {
		return "", fmt.Errorf("%s can never be a field's value", show(s))
	}
	return s, nil
}

// parseParameter reads a query parameter's name; a * may end it.
func parseParameter(s string) (string, error) {
	name := strings.TrimSuffix(s, "*")
	if s == "" || strings.ContainsAny(name, "*&=# ") {
		return "", fmt.Errorf("%s is not a parameter name", show(s))
	}
	return s, nil
}

// parsePrefix reads an address range or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is not an address range", show(s))
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has bits behind its length; %s is the range", show(s), p.Masked())
	}
	return p, nil
}

// parseFile reads the path of a file.
func parseFile(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "\x00\r\n") {
		return "", fmt.Errorf("%s is not a path", show(s))
	}
	return s, nil
}

func parseLogPath(s string) (string, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%s is not a path", show(s))
	}
	return s, nil
}

// parseYoung reads cache.young. The share of the young segment follows the
// traffic; a fixed one is for a coming version.
func parseYoung(s string) (string, error) {
	if s != "adaptive" {
		return "", fmt.Errorf("a fixed share (%s) is not in this version", show(s))
	}
	return s, nil
}
