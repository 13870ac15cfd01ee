package rfc9111

import (
	"net/http"
	"slices"
	"strings"
)

// maxTongues bounds what is learned of one URL.
const maxTongues = 64

// Tongues is what the stored variants of one URL tell of the languages that
// their origin has: those it answered in, and those it passed over. The zero
// value knows nothing.
type Tongues struct {
	has   []string // lower case
	lacks []string // lower case: preferred to what was answered
}

// Learn adds what v tells, if it was chosen by Accept-Language.
func (k *Tongues) Learn(v *Variant) {
	if v.language == "" {
		return
	}
	if len(k.has) < maxTongues && !slices.Contains(k.has, v.language) {
		k.has = append(k.has, v.language)
	}
	for i := range v.fields {
		if v.fields[i].how != byLanguages {
			continue
		}
		all, ok := appendPreferences(nil, v.fields[i].lines)
		if !ok {
			return
		}
		k.passed(all, v.language)
	}
}

// passed learns what a client preferred to the language it was answered in. How
// the origin matches is not known: what is behind any range that may have led to
// the answer may be there too.
func (k *Tongues) passed(all []preference, language string) {
	// The weights of the language itself, of wildcards, and of what may have
	// led to it, with how many ranges have that one.
	named, wild, led, ties := 0, 0, 0, 0
	for _, p := range all {
		if asciiFold(p.tag, language) {
			named = max(named, p.q)
		}
		if strings.Contains(p.tag, "*") {
			wild = max(wild, p.q)
		}
		if within(p.tag, language) || within(language, p.tag) {
			led = max(led, p.q)
		}
	}
	led = max(led, named, wild)
	for _, p := range all {
		if p.q == led {
			ties++
		}
		if p.q == 0 {
			return // what the origin passed over it may have had, and the client refused
		}
	}
	for _, p := range all {
		tag := strings.ToLower(p.tag)
		missing := p.q > led || ties == 1 && p.q == led && p.q > max(named, wild) && within(tag, language)
		if missing && len(k.lacks) < maxTongues && !slices.Contains(k.lacks, tag) {
			k.lacks = append(k.lacks, tag)
		}
	}
}

// Choose returns the language, in lower case, that the origin would answer an
// Accept-Language field in, as far as it is known; else it is empty. It is known
// where all three ways to match ranges come to the same: only equal tags, with
// fewer and fewer subtags (RFC 4647, 3.4), and as the beginning of a tag (3.3.1).
func (k *Tongues) Choose(lines []string) string {
	var room [16]preference
	all, ok := appendPreferences(room[:0], lines)
	if !ok || slices.ContainsFunc(k.has, func(tag string) bool { return slices.Contains(k.lacks, tag) }) {
		return "" // or it changed in between
	}
	slices.SortFunc(all, byWeight)
	looked := "" // what fewer subtags come to
	if len(all) > 0 && all[len(all)-1].q == 0 {
		return "" // ways to match differ most in what they do about these
	}
	for i, p := range all {
		if strings.Contains(p.tag, "*") || i+1 < len(all) && all[i+1].q == p.q {
			return ""
		}
		tag := strings.ToLower(p.tag)
		if slices.Contains(k.has, tag) {
			if looked != "" && looked != tag {
				return ""
			}
			return tag
		}
		if !slices.Contains(k.lacks, tag) || slices.ContainsFunc(k.has, func(t string) bool { return within(t, tag) }) {
			return ""
		}
		for cut := shorter(tag); cut != "" && looked == ""; cut = shorter(cut) {
			if !slices.Contains(k.lacks, cut) {
				looked = cut
			}
		}
	}
	return ""
}

// refused tells whether the field also names the language with weight 0.
func refused(all []preference, tag string) bool {
	return slices.ContainsFunc(all, func(p preference) bool { return p.q == 0 && asciiFold(p.tag, tag) })
}

// MatchesIn tells whether the response is in this language and may answer a
// request with this header, whatever its Accept-Language.
func (v *Variant) MatchesIn(req http.Header, language string) bool {
	return v.language != "" && v.language == language && v.MatchesBeside(req)
}

// MatchesBeside tells whether the fields other than Accept-Language are those of
// a request with this header.
func (v *Variant) MatchesBeside(req http.Header) bool {
	for i := range v.fields {
		if f := &v.fields[i]; f.how != byLanguages && !f.same(req[f.key]) {
			return false
		}
	}
	return true
}
