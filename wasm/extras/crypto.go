package extras

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/abi"
)

// coding is how bytes are written.
type coding string

// coding is the one that the arguments ask for.
func (a arguments) coding() (coding, error) {
	c, ok := a.one("encoding")
	switch c {
	case "raw", "hex", "base64", "base64url":
		return coding(c), nil
	}
	if ok {
		return "", fmt.Errorf("%w: encoding is raw, hex, base64 or base64url", abi.ErrArgument)
	}
	return "raw", nil
}

func (c coding) write(b []byte) string {
	switch c {
	case "hex":
		return hex.EncodeToString(b)
	case "base64":
		return base64.StdEncoding.EncodeToString(b)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return string(b)
}

// read returns the bytes of text, which may be anybody's. One text alone
// stands for some bytes, but for the case of hexadecimal digits.
func (c coding) read(text string) (b []byte, ok bool) {
	var err error
	switch c {
	case "hex":
		b, err = hex.DecodeString(text)
	case "base64":
		b, err = base64.StdEncoding.Strict().DecodeString(text)
	case "base64url":
		b, err = base64.RawURLEncoding.Strict().DecodeString(text)
	default:
		return []byte(text), true
	}
	return b, err == nil && !strings.ContainsAny(text, "\r\n")
}

// hash is seawall.sha256.
func (g *Grant) hash(_ *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "data", "encoding")
	if err != nil {
		return nil, err
	}
	data, err1 := a.must("data")
	c, err2 := a.coding()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(data))
	return serialized([]pair{{"hash", c.write(sum[:])}}), nil
}

// mac is seawall.hmac_sha256.
func (g *Grant) mac(_ *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "key", "secret", "data", "encoding", "equals")
	if err != nil {
		return nil, err
	}
	secret, err1 := g.secret(a)
	data, err2 := a.must("data")
	c, err3 := a.coding()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(data))
	sum := h.Sum(nil)
	if text, ok := a.one("equals"); ok {
		want, ok := c.read(text)
		return serialized([]pair{{"equal", truth(ok && hmac.Equal(sum, want))}}), nil
	}
	return serialized([]pair{{"hash", c.write(sum)}}), nil
}

// secret is what the arguments say to sign with.
func (g *Grant) secret(a arguments) ([]byte, error) {
	given, hasSecret := a.one("secret")
	_, hasKey := a.one("key")
	if hasSecret == hasKey {
		return nil, fmt.Errorf("%w: give key or secret", abi.ErrArgument)
	}
	if hasSecret {
		return []byte(given), nil
	}
	k, err := g.key(a)
	if err != nil {
		return nil, err
	}
	for _, v := range k.verifiers {
		if secret, ok := v.key.([]byte); ok && slices.Contains(v.algorithms, "HS256") {
			return secret, nil
		}
	}
	return nil, fmt.Errorf("%w: the key is no secret for HS256", abi.ErrArgument)
}

// verify is seawall.verify.
func (g *Grant) verify(_ *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "key", "data", "signature", "encoding", "algorithm", "kid", "format")
	if err != nil {
		return nil, err
	}
	k, err1 := g.key(a)
	data, err2 := a.must("data")
	text, err3 := a.must("signature")
	c, err4 := a.coding()
	format, hasFormat := a.one("format")
	if hasFormat && format != "raw" && format != "der" {
		return nil, fmt.Errorf("%w: format is raw or der", abi.ErrArgument)
	}
	algorithm, hasAlgorithm := a.one("algorithm")
	if hasAlgorithm && kindOf(algorithm) == "" {
		return nil, fmt.Errorf("%w: algorithm %.16q is not known", abi.ErrArgument, algorithm)
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	kid, hasKid := a.one("kid")
	if !hasAlgorithm {
		algorithm, err = k.only(kid, hasKid)
	}
	var set jwt.VerificationKeySet
	if err == nil {
		set, err = k.candidates(algorithm, kid, hasKid)
	}
	var f fault
	if errors.As(err, &f) {
		return refusal(f), nil
	}
	if err != nil {
		return nil, err
	}
	signature, ok := c.read(text)
	if ok && holds(algorithm, format == "der", set, data, signature) {
		return serialized([]pair{{"valid", "true"}}), nil
	}
	return refusal(faultSignature), nil
}

// holds reports whether one of the keys has signed data. ECDSA signatures are
// r and s one after the other, as in JWS (RFC 7518, 3.4), or DER.
func holds(algorithm string, der bool, set jwt.VerificationKeySet, data string, signature []byte) bool {
	method := jwt.GetSigningMethod(algorithm)
	return method != nil && slices.ContainsFunc(set.Keys, func(key jwt.VerificationKey) bool {
		k, ok := key.(*ecdsa.PublicKey)
		switch {
		case !ok || !der:
			return method.Verify(data, signature, key) == nil
		case algorithm == "ES384":
			sum := sha512.Sum384([]byte(data))
			return ecdsa.VerifyASN1(k, sum[:], signature)
		}
		sum := sha256.Sum256([]byte(data))
		return ecdsa.VerifyASN1(k, sum[:], signature)
	})
}
