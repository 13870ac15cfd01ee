package extras

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/abi"
)

// Bounds of tokens.
const (
	maxToken  = 8 << 10
	maxTried  = 8 // keys, when a token does not say which
	maxLeeway = 600
	// maxDate is the largest date in seconds that is taken for one: later
	// ones do not fit the arithmetic of dates everywhere.
	maxDate = 1 << 40
)

// fault is why a token or signature does not hold: a word that stays.
type fault string

func (f fault) Error() string { return string(f) }

// The faults.
const (
	faultOversized   fault = "oversized"
	faultMalformed   fault = "malformed"
	faultAlgorithm   fault = "alg"
	faultKey         fault = "key"
	faultUnavailable fault = "unavailable"
	faultSignature   fault = "signature"
	faultExpired     fault = "expired"
	faultNotYet      fault = "not_yet"
	faultIssuer      fault = "issuer"
	faultAudience    fault = "audience"
	faultClaims      fault = "claims"
)

// refusal is the result of a call for something that does not hold.
func refusal(f fault) []byte { return serialized([]pair{{"valid", "false"}, {"error", string(f)}}) }

// demand is what a token must be.
type demand struct {
	key       *namedKey
	issuers   []string
	audiences []string
	leeway    time.Duration
	required  []string
	claims    map[string][]string // by name, any of the values
	undated   bool                // exp may be missing
}

// jwtVerify is seawall.jwt_verify.
func (g *Grant) jwtVerify(_ *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "token", "key", "issuer*", "audience*", "leeway", "require*", "claim.*", "expiration")
	if err != nil {
		return nil, err
	}
	token, err := a.must("token")
	if err != nil {
		return nil, err
	}
	d, err := g.demand(a)
	if err != nil {
		return nil, err
	}
	result, err := d.verify(token)
	var f fault
	if errors.As(err, &f) {
		return refusal(f), nil
	}
	return result, err
}

// demand reads what the arguments ask of a token.
func (g *Grant) demand(a arguments) (*demand, error) {
	d := &demand{issuers: a.all("issuer"), audiences: a.all("audience"), required: a.all("require")}
	var err error
	if d.key, err = g.key(a); err != nil {
		return nil, err
	}
	if slices.Contains(d.issuers, "") || slices.Contains(d.audiences, "") {
		return nil, fmt.Errorf("%w: an empty issuer or audience", abi.ErrArgument)
	}
	if text, ok := a.one("leeway"); ok {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n > maxLeeway {
			return nil, fmt.Errorf("%w: leeway is a number of seconds up to %d", abi.ErrArgument, maxLeeway)
		}
		d.leeway = time.Duration(n) * time.Second
	}
	switch word, ok := a.one("expiration"); {
	case !ok, word == "required":
	case word == "optional":
		d.undated = true
	default:
		return nil, fmt.Errorf("%w: expiration is required or optional", abi.ErrArgument)
	}
	for _, p := range a {
		if name, ok := strings.CutPrefix(p.name, "claim."); ok {
			if d.claims == nil {
				d.claims = make(map[string][]string)
			}
			d.claims[name] = append(d.claims[name], p.value)
		}
	}
	return d, nil
}

// verify judges a token (RFC 7515, 5.2; RFC 7519, 7.2; RFC 8725). A fault is a
// fault; every other error is the caller's.
func (d *demand) verify(token string) ([]byte, error) {
	if len(token) > maxToken {
		return nil, faultOversized
	}
	h, err := readHeader(token)
	if err != nil {
		return nil, err
	}
	keys, err := d.key.candidates(h.algorithm, h.kid, h.hasKid)
	if err != nil {
		return nil, err
	}
	// The algorithm is the token's word only as far as candidates has found
	// keys that are of its type and allowed for it.
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{h.algorithm}), jwt.WithStrictDecoding(), jwt.WithJSONNumber(), jwt.WithLeeway(d.leeway)}
	if !d.undated {
		options = append(options, jwt.WithExpirationRequired())
	}
	if len(d.audiences) > 0 {
		options = append(options, jwt.WithAudience(d.audiences...))
	}
	claims := jwt.MapClaims{}
	_, err = jwt.NewParser(options...).ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return keys, nil })
	if f := d.fault(claims, err); f != "" {
		return nil, f
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1]) // it has been read above
	return h.result(claims, payload), nil
}

// header is what of a token's header counts. Keys and places of keys that it
// names (jwk, jku, x5c, x5u) do not.
type header struct {
	algorithm, kid string
	hasKid         bool
}

// readHeader reads a token's header, and looks at its shape as a whole.
func readHeader(token string) (h header, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return h, faultMalformed
	}
	for _, part := range parts {
		// Checked here because decoders skip line breaks.
		if strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return h, faultMalformed
		}
	}
	fields, err := object(parts[0])
	if err != nil {
		return h, err
	}
	if _, err := object(parts[1]); err != nil {
		return h, err
	}
	if json.Unmarshal(fields["alg"], &h.algorithm) != nil || h.algorithm == "" {
		return h, faultMalformed
	}
	// An extension that must be understood is not (RFC 7515, 4.1.11).
	if _, ok := fields["crit"]; ok {
		return h, faultMalformed
	}
	if raw, ok := fields["kid"]; ok {
		if h.hasKid = true; json.Unmarshal(raw, &h.kid) != nil {
			return h, faultMalformed
		}
	}
	return h, nil
}

// object decodes a part of a token that is a JSON object.
func object(part string) (map[string]json.RawMessage, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, faultMalformed
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil || fields == nil {
		return nil, faultMalformed
	}
	return fields, nil
}

// fault is what is wrong with a token that the parser has looked at, "" for
// nothing; the first in the order of the words.
func (d *demand) fault(claims jwt.MapClaims, err error) fault {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(jwt.ErrTokenMalformed):
		return faultMalformed
	case is(jwt.ErrTokenSignatureInvalid):
		return faultSignature
	case err != nil && !is(jwt.ErrTokenInvalidClaims):
		return faultMalformed
	case !dated(claims):
		return faultClaims
	case is(jwt.ErrTokenExpired):
		return faultExpired
	case is(jwt.ErrTokenNotValidYet):
		return faultNotYet
	case len(d.issuers) > 0 && !slices.ContainsFunc(d.issuers, func(want string) bool { return claims["iss"] == want }):
		return faultIssuer
	case is(jwt.ErrTokenInvalidAudience), len(d.audiences) > 0 && !audible(claims):
		return faultAudience
	case err != nil, !d.met(claims):
		return faultClaims
	}
	return ""
}

// dated reports whether the dates are dates.
func dated(claims jwt.MapClaims) bool {
	for _, name := range []string{"exp", "nbf", "iat"} {
		v, ok := claims[name]
		if !ok {
			continue
		}
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		if f, err := n.Float64(); err != nil || f < 0 || f > maxDate {
			return false
		}
	}
	return true
}

// audible reports whether there is an audience at all, of the right type.
func audible(claims jwt.MapClaims) bool {
	list, err := claims.GetAudience()
	return err == nil && len(list) > 0
}

// met reports whether the claims are there that the caller wants.
func (d *demand) met(claims jwt.MapClaims) bool {
	for _, name := range d.required {
		if claims[name] == nil {
			return false
		}
	}
	for name, values := range d.claims {
		if !slices.ContainsFunc(values, func(want string) bool { return has(claims[name], want) }) {
			return false
		}
	}
	return true
}

// has reports whether a claim is a text, or a list with it.
func has(claim any, want string) bool {
	list, ok := claim.([]any)
	return claim == any(want) && !ok || ok && slices.ContainsFunc(list, func(one any) bool {
		text, ok := one.(string)
		return ok && text == want
	})
}

// result is what a caller learns of a token that holds.
func (h *header) result(claims jwt.MapClaims, payload []byte) []byte {
	out := []pair{{"valid", "true"}, {"json", string(payload)}, {"alg", h.algorithm}}
	if h.hasKid {
		out = append(out, pair{"kid", h.kid})
	}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		text, ok := claims[name].(string)
		if !ok {
			raw, err := json.Marshal(claims[name])
			if err != nil {
				continue // cannot be: it was JSON
			}
			text = string(raw)
		}
		out = append(out, pair{"claim." + name, text})
	}
	return serialized(out)
}
