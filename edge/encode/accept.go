package encode

import "strings"

// Accepted is what a request's Accept-Encoding says, reduced to the codings this
// package knows: equal values are answered alike. The zero value takes nothing.
type Accepted struct {
	q [codings]uint16 // thousandths; 0 is not acceptable
}

const (
	full = 1000
	// tolerated is the quality of what a client takes without having asked for
	// it: the least weight that it could write.
	tolerated = 1
)

// maxField is how many bytes of Accept-Encoding are read, over all lines. The
// longest in use has 40; a longer field than this is a mistake or an attack, and
// is answered with identity.
const maxField = 1024

// Accept reads Accept-Encoding (RFC 9110, 12.5.3); no line means that the field
// is absent. It does not allocate and reads at most 1 KiB.
//
// Without the field any coding is acceptable, but clients that do not send it
// often cannot decode, so identity ranks first. An empty field, or one longer
// than 1 KiB, takes identity alone. Identity that is not mentioned is acceptable
// below anything mentioned. A coding whose weight cannot be read is not
// acceptable; that of identity or of "*" is then as if not mentioned. When a
// coding is named twice, the smaller weight counts.
func Accept(lines []string) Accepted {
	if len(lines) == 0 {
		return Accepted{q: [codings]uint16{full, tolerated, tolerated, tolerated, tolerated}}
	}
	f := field{star: unread}
	for c := range f.q {
		f.q[c] = unread
	}
	size := 0
	for _, line := range lines {
		if size += len(line) + 1; size > maxField {
			return Accepted{q: [codings]uint16{Identity: full}}
		}
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			f.add(trim(member))
		}
	}
	return f.accepted()
}

// unread marks a coding that no member speaks of.
const unread = 0xffff

// field collects the weights of an Accept-Encoding field.
type field struct {
	q    [codings]uint16
	star uint16
}

func (f *field) add(member string) {
	name, params, weighted := strings.Cut(member, ";")
	name = trim(name)
	q, readable := uint16(full), true
	if weighted {
		q, readable = weight(trim(params))
	}
	if name == "*" {
		if readable {
			f.star = min(f.star, q)
		}
		return
	}
	c, known := Parse(name)
	switch {
	case !known:
	case readable:
		f.q[c] = min(f.q[c], q)
	case c != Identity:
		f.q[c] = 0
	}
}

func (f *field) accepted() (a Accepted) {
	for c, q := range f.q {
		if q == unread {
			q = f.star
		}
		if q == unread {
			q = 0
			if Coding(c) == Identity {
				q = tolerated
			}
		}
		a.q[c] = q
	}
	return a
}

// weight reads "q=0.8" in thousandths (RFC 9110, 12.4.2).
func weight(s string) (q uint16, ok bool) {
	if len(s) < 3 || len(s) > 7 || s[0]|0x20 != 'q' || s[1] != '=' || s[2] != '0' && s[2] != '1' {
		return 0, false
	}
	q = uint16(s[2]-'0') * 1000
	if len(s) > 3 && s[3] != '.' {
		return 0, false
	}
	unit := uint16(100)
	for i := 4; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		q += uint16(s[i]-'0') * unit
		unit /= 10
	}
	return q, q <= full
}

// Takes tells whether the client accepts content that was coded by all of stack,
// in any order; no coding is identity.
func (a Accepted) Takes(stack ...Coding) bool {
	for _, c := range stack {
		if c >= codings || a.q[c] == 0 {
			return false
		}
	}
	return len(stack) > 0 || a.q[Identity] > 0
}

// Choose returns the coding to answer with, of those that are stored and those
// that can be made now; either set may hold Identity. What the client weighs
// most counts first. Among equals, what is stored comes before what would have to
// be made, so that a hit never compresses; then the order of prefer, which is
// PreferStored when nil; identity last. A coding that prefer leaves out is not
// chosen.
//
// It is false when the client takes nothing of it. The coding is then Identity
// all the same: RFC 9110, 12.5.3 leaves the server free to send a representation
// that was not asked for, which helps more than a 406.
func (a Accepted) Choose(prefer []Coding, stored, makeable Set) (Coding, bool) {
	if prefer == nil {
		prefer = PreferStored()
	}
	best, rank := Identity, uint32(0)
	try := func(c Coding) {
		if c >= codings || a.q[c] == 0 || !(stored | makeable).Has(c) {
			return
		}
		r := uint32(a.q[c]) << 2
		if c != Identity {
			r |= 1
			if stored.Has(c) {
				r |= 2
			}
		}
		if r > rank {
			best, rank = c, r
		}
	}
	for _, c := range prefer {
		try(c)
	}
	try(Identity)
	return best, rank > 0
}

// PreferStored returns the default order for responses that are kept: br, zstd,
// gzip. An object is compressed once and sent often, and brotli is the smallest,
// the more so when it is made again in the background. All browsers take it, so
// most objects have one coding only.
func PreferStored() []Coding { return []Coding{Brotli, Zstd, Gzip} }

// PreferStream returns the default order for responses that are compressed for
// one client and then forgotten: zstd, gzip, br. By what they cost: zstd takes a
// sixth of brotli's time and two thirds of gzip's, for a tenth and a fiftieth more
// bytes (see the qualities in coder.go).
func PreferStream() []Coding { return []Coding{Zstd, Gzip, Brotli} }
