//go:build wasip1 && guestcrypto

package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/examples/guest"
)

// Here the line key holds the key itself: ALGORITHM BASE64, of HS256, RS256,
// ES256 and EdDSA. The base64 text is the secret's, or the public key's (DER,
// SubjectPublicKeyInfo):
//
//	openssl pkey -in private.pem -pubout -outform DER | base64 -w0

var (
	parser *jwt.Parser
	public any
)

// prepare reads the key.
func prepare() error {
	algorithm, text, _ := strings.Cut(key, " ")
	bytes, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return errors.New("key: not ALGORITHM BASE64")
	}
	if public, err = keyOf(algorithm, bytes); err != nil {
		return err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{algorithm}), jwt.WithStrictDecoding(), jwt.WithJSONNumber(),
		jwt.WithLeeway(time.Duration(asked.leeway) * time.Second),
	}
	if !asked.unending {
		options = append(options, jwt.WithExpirationRequired())
	}
	parser = jwt.NewParser(options...)
	return nil
}

// keyOf reads a key that is of the algorithm's own type.
func keyOf(algorithm string, bytes []byte) (any, error) {
	if algorithm == "HS256" {
		if len(bytes) < 16 {
			return nil, errors.New("key: a secret of less than 16 bytes")
		}
		return bytes, nil
	}
	k, err := x509.ParsePKIXPublicKey(bytes)
	if err != nil {
		return nil, errors.New("key: no public key")
	}
	fits := false
	switch k := k.(type) {
	case *rsa.PublicKey:
		fits = algorithm == "RS256" && k.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		fits = algorithm == "ES256" && k.Curve.Params().BitSize == 256
	case ed25519.PublicKey:
		fits = algorithm == "EdDSA"
	}
	if !fits {
		return nil, errors.New("key: not of the algorithm " + algorithm)
	}
	return k, nil
}

// verify returns the claims of a token, as a map of claim.NAME, or what is
// wrong with it.
func verify(token string) (claims, fault string) {
	all := jwt.MapClaims{}
	if _, err := parser.ParseWithClaims(token, all, signer); err != nil {
		if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
			return "", faultExpired
		}
		return "", "token"
	}
	if !demanded(all) {
		return "", "claims"
	}
	var list []string
	for name, v := range all {
		list = append(list, "claim."+name, text(v))
	}
	return guest.Pairs(list...), faultNone
}

// signer is the key for a token. An extension that must be understood is not
// (RFC 7515, 4.1.11).
func signer(t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, errors.New("crit")
	}
	return public, nil
}

// demanded reports whether the claims are as the configuration wants them.
func demanded(all jwt.MapClaims) bool {
	issuer, err := all.GetIssuer()
	if len(asked.issuers) > 0 && (err != nil || !slices.Contains(asked.issuers, issuer)) {
		return false
	}
	audience, err := all.GetAudience()
	if len(asked.audiences) > 0 && (err != nil || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(asked.audiences, a) })) {
		return false
	}
	for _, name := range asked.required {
		if all[name] == nil {
			return false
		}
	}
	for _, c := range asked.claims {
		one := func(other [2]string) bool { return other[0] == c[0] && has(all[c[0]], other[1]) }
		if !slices.ContainsFunc(asked.claims, one) {
			return false
		}
	}
	return true
}

// has reports whether a claim is the text, or a list that has it.
func has(claim any, want string) bool {
	if list, ok := claim.([]any); ok {
		return slices.ContainsFunc(list, func(v any) bool { return v == want })
	}
	return claim == want
}

// text is a claim for a field: texts as they are, all else as JSON.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
