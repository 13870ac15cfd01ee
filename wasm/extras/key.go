package extras

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key says what a named key is made of: exactly one of Secret, Public and
// JWKS.
type Key struct {
	// Secret is shared with whoever signs, 16 bytes or more.
	Secret []byte
	// Public is PEM: public keys or certificates, of which any may have signed.
	Public string
	// JWKS is where keys are fetched from.
	JWKS *JWKS
	// Algorithms narrow what the key may be used for, by their names in RFC
	// 7518 and 8037; nil: HS256 for a secret, RS256 for RSA, else those that a
	// key's own type has. Symmetric keys of a JWKS count only if their algorithm
	// is named here: what a public page serves is no secret.
	Algorithms []string
}

// JWKS says how a set of keys is fetched (RFC 7517, 5).
type JWKS struct {
	URL string
	// Refresh is the longest time between fetches; 0: an hour. Lifetimes of
	// the responses shorten it, to a minute at least.
	Refresh time.Duration
	// UnknownKid is the shortest time between the fetches that unknown key ids
	// cause; 0: 30s.
	UnknownKid time.Duration
	// Timeout is how long a fetch may take; 0: 5s.
	Timeout time.Duration
}

// Bounds of keys. A larger RSA key costs more than a function should.
const (
	leastSecret = 16
	leastRSA    = 2048 // bits
	mostRSA     = 8192
	maxKeys     = 64 // of one name
)

// Kinds of algorithms: what type of key each belongs to.
const (
	kindSecret  = "secret"
	kindRSA     = "RSA"
	kindP256    = "EC P-256"
	kindP384    = "EC P-384"
	kindEd25519 = "Ed25519"
)

// kindOf is the type of key that an algorithm takes; "" for one that is not
// known. "none" is not.
func kindOf(algorithm string) string {
	switch algorithm {
	case "HS256", "HS384", "HS512":
		return kindSecret
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return kindRSA
	case "ES256":
		return kindP256
	case "ES384":
		return kindP384
	case "EdDSA":
		return kindEd25519
	}
	return ""
}

// AlgorithmNames are those that kindOf knows.
func AlgorithmNames() []string {
	return []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}
}

// verifier is one key with what it may be used for.
type verifier struct {
	kid        string
	algorithms []string
	key        any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// kind is the type of a key, or an error that says what is wrong with it.
func kind(key any) (string, error) {
	switch k := key.(type) {
	case []byte:
		if len(k) < leastSecret {
			return "", fmt.Errorf("a secret of %d bytes; it must have %d", len(k), leastSecret)
		}
		return kindSecret, nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < leastRSA || bits > mostRSA {
			return "", fmt.Errorf("an RSA key of %d bits; it must have %d to %d", bits, leastRSA, mostRSA)
		}
		if k.E < 3 || k.E&1 == 0 {
			return "", fmt.Errorf("an RSA key with the exponent %d", k.E)
		}
		return kindRSA, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return kindP256, nil
		case elliptic.P384():
			return kindP384, nil
		}
		return "", fmt.Errorf("an EC key of the curve %s; P-256 and P-384 are known", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return kindEd25519, nil
	}
	return "", errors.New("a key of a type that is not known; RSA, EC and Ed25519 are")
}

// allowed are the algorithms of a kind that a list has; of no list all.
func allowed(kind string, list []string) (names []string) {
	for _, name := range AlgorithmNames() {
		if kindOf(name) == kind && (list == nil || slices.Contains(list, name)) {
			names = append(names, name)
		}
	}
	return names
}

// Check reports what is wrong with k.
func (k *Key) Check() error {
	given := 0
	for _, is := range []bool{k.Secret != nil, k.Public != "", k.JWKS != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return errors.New("a key is one of secret, public and jwks")
	}
	for _, a := range k.Algorithms {
		if kindOf(a) == "" {
			return fmt.Errorf("%q is no algorithm; known are %s", a, strings.Join(AlgorithmNames(), ", "))
		}
	}
	if k.JWKS != nil {
		return nil
	}
	_, err := k.fixed()
	return err
}

// fixed are the verifiers of a key that is not fetched.
func (k *Key) fixed() ([]verifier, error) {
	if k.Secret != nil {
		v, err := k.verifier(k.Secret, "HS256")
		return []verifier{v}, err
	}
	keys, err := parsePublic(k.Public)
	if err != nil {
		return nil, err
	}
	var all []verifier
	for _, key := range keys {
		v, err := k.verifier(key, "RS256")
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// verifier makes one of a key; first is the algorithm that stands for its
// type when none is named.
func (k *Key) verifier(key any, first string) (verifier, error) {
	kind, err := kind(key)
	if err != nil {
		return verifier{}, err
	}
	list := k.Algorithms
	if list == nil && kindOf(first) == kind {
		list = []string{first}
	}
	v := verifier{algorithms: allowed(kind, list), key: key}
	if len(v.algorithms) == 0 {
		return v, fmt.Errorf("none of the algorithms is one of a key of type %s; its own are %s", kind, strings.Join(allowed(kind, nil), ", "))
	}
	return v, nil
}

// parsePublic reads PEM blocks: public keys (PKIX, PKCS #1) and certificates,
// whose dates do not matter here.
func parsePublic(text string) (keys []any, err error) {
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		var key any
		switch {
		case block.Type == "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case block.Type == "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case block.Type == "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = c.PublicKey
			}
		case strings.Contains(block.Type, "PRIVATE"):
			return nil, errors.New("a private key, which only the signer should have; give its public key: openssl pkey -in FILE -pubout")
		default:
			return nil, fmt.Errorf("a PEM block %.40q; PUBLIC KEY and CERTIFICATE are read", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("a PEM block %s that cannot be read", block.Type)
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block; it begins with -----BEGIN PUBLIC KEY-----")
	}
	return keys, nil
}
