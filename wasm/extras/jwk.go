package extras

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// jwk is a key of a set (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2). Its
// certificates and the places of such (x5c, x5u) are not looked at.
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	Crv    string   `json:"crv"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	K      string   `json:"k"`
}

// parseKeySet reads a JWK set. Keys that cannot be used are skipped, as RFC
// 7517, 5 has it, and named in skipped with the reason; a set without a usable
// key is errUnusable. algorithms narrow those of each key, as in Key.
func parseKeySet(text []byte, algorithms []string) (keys []verifier, skipped []string, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, nil, fmt.Errorf("%w: it is no JWK set, the JSON of an object with a list of keys", errUnusable)
	}
	skip := func(i int, kid string, why error) {
		if len(skipped) < 8 {
			skipped = append(skipped, fmt.Sprintf("key %d (kid %.64q): %v", i+1, kid, why))
		}
	}
	for i, raw := range set.Keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			skip(i, "", errors.New("not a JSON Web Key"))
			continue
		}
		v, err := k.verifier(algorithms)
		if err == nil && len(keys) == maxKeys {
			err = fmt.Errorf("more than %d keys", maxKeys)
		}
		if err != nil {
			skip(i, k.Kid, err)
			continue
		}
		keys = append(keys, v)
	}
	if len(keys) == 0 {
		return nil, skipped, fmt.Errorf("%w: none of %d keys can be used", errUnusable, len(set.Keys))
	}
	return keys, skipped, nil
}

// verifier makes one of the key. Its algorithms are those of its type, of its
// own alg if it has one, and of the list if there is one.
func (k *jwk) verifier(list []string) (verifier, error) {
	v := verifier{kid: k.Kid}
	if len(k.Kid) > maxName {
		return v, fmt.Errorf("a kid of %d bytes", len(k.Kid))
	}
	if k.Use != "" && k.Use != "sig" {
		return v, fmt.Errorf("it is for use %.16q", k.Use)
	}
	if k.KeyOps != nil && !slices.Contains(k.KeyOps, "verify") {
		return v, errors.New("it is not for verifying")
	}
	key, err := k.key()
	if err != nil {
		return v, err
	}
	kind, err := kind(key)
	if err != nil {
		return v, err
	}
	if kind == kindSecret && list == nil {
		return v, errors.New("a symmetric key, and the configuration names none of its algorithms")
	}
	v.key, v.algorithms = key, allowed(kind, list)
	if k.Alg != "" {
		v.algorithms = slices.DeleteFunc(v.algorithms, func(a string) bool { return a != k.Alg })
	}
	if len(v.algorithms) == 0 {
		return v, fmt.Errorf("no algorithm is left for it: its type is %s, its alg %.16q", kind, k.Alg)
	}
	return v, nil
}

// key is the key itself.
func (k *jwk) key() (any, error) {
	switch k.Kty {
	case "RSA":
		n, err1 := number(k.N)
		e, err2 := number(k.E)
		if err := errors.Join(err1, err2); err != nil || len(n) > mostRSA/8 || len(e) > 4 || len(e) == 0 {
			return nil, errors.New("its n or e is not right")
		}
		exponent := new(big.Int).SetBytes(e).Int64()
		if exponent > 1<<31-1 {
			return nil, errors.New("its e is too large")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent)}, nil
	case "EC":
		return k.point()
	case "OKP":
		x, err := number(k.X)
		if k.Crv != "Ed25519" || err != nil || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an OKP key of the curve %.16q, or with a wrong x; Ed25519 is known", k.Crv)
		}
		return ed25519.PublicKey(x), nil
	case "oct":
		secret, err := number(k.K)
		if err != nil {
			return nil, errors.New("its k is not right")
		}
		return secret, nil
	}
	return nil, fmt.Errorf("its kty is %.16q; RSA, EC, OKP and oct are known", k.Kty)
}

// point is an EC key; its coordinates have the full size (RFC 7518, 6.2.1.2).
func (k *jwk) point() (any, error) {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}
	curve := curves[k.Crv]
	if curve == nil {
		return nil, fmt.Errorf("an EC key of the curve %.16q; P-256 and P-384 are known", k.Crv)
	}
	x, err1 := number(k.X)
	y, err2 := number(k.Y)
	size := (curve.Params().BitSize + 7) / 8
	if errors.Join(err1, err2) != nil || len(x) != size || len(y) != size {
		return nil, errors.New("its x or y is not right")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("its x and y are not on the curve")
	}
	return key, nil
}

// number reads base64url. Padding is forgiven: some sets have it.
func number(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder would skip
		return nil, errors.New("a line break")
	}
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
