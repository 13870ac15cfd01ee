//go:build wasip1 && guestcrypto

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"seawall/wasm/examples/guest"
)

// Here the line key holds the key itself, as a JWK (RFC 7517) on one line: of
// type oct for HS256, RSA for RS256, EC with P-256 for ES256, OKP with Ed25519
// for EdDSA. What a key is for follows from its type alone, never from the
// token. Packages that read PEM import net, which needs what no node offers.

var (
	algorithm string
	holds     func(text, signature []byte) bool // whether the key has signed it
)

// jwk is what counts of a key.
type jwk struct{ Kty, Crv, K, N, E, X, Y string }

// prepare reads the key.
func prepare() error {
	var k jwk
	if json.Unmarshal([]byte(key), &k) != nil {
		return errors.New("key: not a JWK")
	}
	switch {
	case k.Kty == "oct":
		return k.secret()
	case k.Kty == "RSA":
		return k.rsa()
	case k.Kty == "EC" && k.Crv == "P-256":
		return k.ecdsa()
	case k.Kty == "OKP" && k.Crv == "Ed25519":
		public, ok := decoded(k.X)
		if !ok || len(public) != ed25519.PublicKeySize {
			return errors.New("key: x is no public key")
		}
		algorithm, holds = "EdDSA", func(text, signature []byte) bool { return ed25519.Verify(public, text, signature) }
		return nil
	}
	return errors.New("key: none of oct, RSA, EC with P-256, OKP with Ed25519")
}

func (k *jwk) secret() error {
	secret, ok := decoded(k.K)
	if !ok || len(secret) < 16 {
		return errors.New("key: k has less than 16 bytes")
	}
	algorithm, holds = "HS256", func(text, signature []byte) bool {
		m := hmac.New(sha256.New, secret)
		m.Write(text) // a hash takes all
		return hmac.Equal(m.Sum(nil), signature)
	}
	return nil
}

func (k *jwk) rsa() error {
	n, ok := decoded(k.N)
	e, ok2 := decoded(k.E)
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if !ok || !ok2 || len(e) > 4 || public.E < 3 || public.N.BitLen() < 2048 || public.N.BitLen() > 8192 {
		return errors.New("key: n and e are no public key of 2048 to 8192 bits")
	}
	algorithm, holds = "RS256", func(text, signature []byte) bool {
		sum := sha256.Sum256(text)
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature) == nil
	}
	return nil
}

func (k *jwk) ecdsa() error {
	x, ok := decoded(k.X)
	y, ok2 := decoded(k.Y)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if !ok || !ok2 || err != nil {
		return errors.New("key: x and y are no point of the curve")
	}
	algorithm, holds = "ES256", func(text, signature []byte) bool {
		sum := sha256.Sum256(text)
		return len(signature) == 64 &&
			ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	return nil
}

func decoded(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil && !strings.ContainsAny(s, "\r\n") // which decoders skip
}

// verify returns the claims of a token, as a map of claim.NAME, or what is
// wrong with it. Nothing of it but the algorithm counts before the signature.
func verify(token string) (claims, fault string) {
	head, rest, _ := strings.Cut(token, ".")
	body, last, ok := strings.Cut(rest, ".")
	signature, ok2 := decoded(last)
	text, ok3 := decoded(head)
	var h struct {
		Alg  string
		Crit json.RawMessage
	}
	if !ok || !ok2 || !ok3 || json.Unmarshal(text, &h) != nil || h.Crit != nil {
		return "", "malformed" // extensions that must be understood are not
	}
	if h.Alg != algorithm {
		return "", "alg"
	}
	if !holds([]byte(token[:len(head)+1+len(body)]), signature) {
		return "", "signature"
	}
	var all map[string]json.RawMessage
	if text, ok = decoded(body); !ok || json.Unmarshal(text, &all) != nil || all == nil {
		return "", "malformed"
	}
	if fault := timely(all); fault != faultNone {
		return "", fault
	}
	if !demanded(all) {
		return "", "claims"
	}
	var list []string
	for name, raw := range all {
		value := string(raw)
		if words, ok := texts(raw); ok && raw[0] == '"' {
			value = words[0]
		}
		list = append(list, "claim."+name, value)
	}
	return guest.Pairs(list...), faultNone
}

// timely holds a token to its times (RFC 7519, 4.1.4 and 4.1.5).
func timely(all map[string]json.RawMessage) (fault string) {
	now, leeway := float64(guest.Now().UnixNano())/float64(time.Second), float64(asked.leeway)
	var exp, nbf *float64
	if json.Unmarshal(orNull(all["exp"]), &exp) != nil || json.Unmarshal(orNull(all["nbf"]), &nbf) != nil || exp == nil && !asked.unending {
		return "claims"
	}
	switch {
	case exp != nil && now >= *exp+leeway:
		return faultExpired
	case nbf != nil && now < *nbf-leeway:
		return "not_yet"
	}
	return faultNone
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// demanded reports whether the claims are as the configuration wants them.
func demanded(all map[string]json.RawMessage) bool {
	one := func(name string, wanted []string) bool {
		have, ok := texts(all[name])
		return ok && slices.ContainsFunc(have, func(v string) bool { return slices.Contains(wanted, v) })
	}
	if len(asked.issuers) > 0 && !one("iss", asked.issuers) || len(asked.audiences) > 0 && !one("aud", asked.audiences) {
		return false
	}
	for _, name := range asked.required {
		if raw := all[name]; raw == nil || string(raw) == "null" {
			return false
		}
	}
	for _, c := range asked.claims {
		var wanted []string
		for _, other := range asked.claims {
			if other[0] == c[0] {
				wanted = append(wanted, other[1])
			}
		}
		if !one(c[0], wanted) {
			return false
		}
	}
	return true
}

// texts is a claim that is a text, or a list of them.
func texts(raw json.RawMessage) ([]string, bool) {
	var one string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &one) == nil {
		return []string{one}, true
	}
	var list []string
	return list, len(raw) > 0 && json.Unmarshal(raw, &list) == nil
}
