package encode

import (
	"net/http"
	"strings"
)

// mark ends the opaque part of entity tags that the node made for a coding. The
// usual "-gzip" and "-br" are what origins append themselves, and would be taken
// for ours.
func mark(c Coding) string {
	switch c {
	case Gzip:
		return "~gz"
	case Brotli:
		return "~br"
	case Zstd:
		return "~zst"
	}
	return ""
}

// SetCoded makes h, the header of an identity response, that of the coding c made
// by the node: Content-Encoding set, ETag as Tag says, Vary as MergeVary says,
// and without what no longer holds (Content-Length, Accept-Ranges). With Identity
// only Vary is merged: that response was chosen by Accept-Encoding as well. The
// slices that h had are not changed.
func SetCoded(h http.Header, c Coding) {
	h["Vary"] = MergeVary(h["Vary"])
	if c == Identity {
		return
	}
	h["Content-Encoding"] = []string{c.String()}
	delete(h, "Content-Length")
	delete(h, "Accept-Ranges")
	tags := h["Etag"]
	delete(h, "Etag")
	if len(tags) == 1 {
		if tag := Tag(tags[0], c); tag != "" {
			h["Etag"] = []string{tag}
		}
	}
}

// Tag returns the entity tag of a coding that the node made of a representation
// with this tag, strong or weak: W/"a~br" for "a" and brotli. It is weak as the
// bytes may be replaced by better ones, and another for each coding as RFC 9110,
// 8.8.3.3 asks. It is empty for a tag that is malformed, and etag itself for
// Identity.
func Tag(etag string, c Coding) string {
	if c == Identity {
		return etag
	}
	opaque, ok := strings.CutPrefix(strings.TrimPrefix(etag, "W/"), `"`)
	if !ok || !strings.HasSuffix(opaque, `"`) || strings.Count(opaque, `"`) > 1 {
		return ""
	}
	return `W/"` + opaque[:len(opaque)-1] + mark(c) + `"`
}

// StripTags returns the lines of If-None-Match with the tags of the node's own
// codings replaced by those of identity, made weak, so that the stored or the
// origin's validator answers the condition (RFC 9110, 13.1.2 compares weakly).
// Tags of codings that the client does not accept now are no answer to it, and
// stay, as all else does, byte by byte. When there is no such tag it is lines
// itself and nothing is allocated.
//
// It is not for If-Match and If-Range: those compare strongly, and a weak tag of
// ours rightly never matches there.
func StripTags(lines []string, accepted Accepted) []string {
	for i, line := range lines {
		if !strings.Contains(line, "~") {
			continue
		}
		if stripped := stripLine(line, accepted); stripped != line {
			out := append([]string(nil), lines...)
			for j := i; j < len(out); j++ {
				out[j] = stripLine(out[j], accepted)
			}
			return out
		}
	}
	return lines
}

// stripLine removes the mark from each weak tag of the line that has one.
func stripLine(line string, accepted Accepted) string {
	var b strings.Builder
	rest, cut := line, false
	for {
		open := strings.IndexByte(rest, '"')
		if open < 0 {
			break
		}
		length := strings.IndexByte(rest[open+1:], '"')
		if length < 0 {
			break
		}
		opaque := rest[open+1 : open+1+length]
		kept := opaque
		if strings.HasSuffix(rest[:open], "W/") {
			kept = unmark(opaque, accepted)
		}
		cut = cut || len(kept) < len(opaque)
		b.WriteString(rest[:open+1])
		b.WriteString(kept)
		b.WriteByte('"')
		rest = rest[open+1+length+1:]
	}
	if !cut {
		return line
	}
	b.WriteString(rest)
	return b.String()
}

// unmark removes the mark of an accepted coding from the opaque part of a tag.
func unmark(opaque string, accepted Accepted) string {
	for _, c := range [...]Coding{Gzip, Brotli, Zstd} {
		if plain, ok := strings.CutSuffix(opaque, mark(c)); ok && accepted.Takes(c) {
			return plain
		}
	}
	return opaque
}

// MergeVary returns the lines of Vary with Accept-Encoding among their members:
// lines itself where it is there already or "*" is, else a copy with it appended
// to the last line.
func MergeVary(lines []string) []string {
	for _, line := range lines {
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			if member = trim(member); member == "*" || fold(member, "accept-encoding") {
				return lines
			}
		}
	}
	if len(lines) == 0 || trim(lines[len(lines)-1]) == "" {
		return append(lines[:max(0, len(lines)-1):max(0, len(lines)-1)], "Accept-Encoding")
	}
	last := len(lines) - 1
	return append(lines[:last:last], lines[last]+", Accept-Encoding")
}
