package extras

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestHashes(t *testing.T) {
	// The vectors: FIPS 180-4 for "abc", RFC 4231 test case 2.
	const abc, mac = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
	raw, _ := hex.DecodeString(abc)
	macRaw, _ := hex.DecodeString(mac)
	secret := []byte("a secret of sixteen bytes or more")
	g := granted(t, Config{Keys: map[string]Key{
		"links": {Secret: secret}, "strong": {Secret: secret, Algorithms: []string{"HS512"}}, "rsa": someSigners(t).public(t, "RS256"),
	}}, Options{})
	own := call(t, g, "seawall.hmac_sha256", "key", "links", "data", "d", "encoding", "base64url")
	jefe := func(more ...string) []string {
		return append([]string{"secret", "Jefe", "data", "what do ya want for nothing?"}, more...)
	}
	for _, test := range []struct {
		name, call string
		args       []string
		want       string
	}{
		{"sha256", "sha256", []string{"data", "abc", "encoding", "hex"}, "hash=" + abc},
		{"raw", "sha256", []string{"data", "abc"}, "hash=" + string(raw)},
		{"base64", "sha256", []string{"data", "abc", "encoding", "base64"}, "hash=" + base64.StdEncoding.EncodeToString(raw)},
		{"base64url", "sha256", []string{"data", "abc", "encoding", "base64url"}, "hash=" + base64.RawURLEncoding.EncodeToString(raw)},
		{"empty encoding", "sha256", []string{"data", "abc", "encoding", ""}, "bad argument"},
		{"unknown encoding", "sha256", []string{"data", "abc", "encoding", "base32"}, "bad argument"},
		{"no data", "sha256", nil, "bad argument"},
		{"hmac", "hmac_sha256", jefe("encoding", "hex"), "hash=" + mac},
		{"equal", "hmac_sha256", jefe("encoding", "hex", "equals", mac), "equal=true"},
		{"equal in capitals", "hmac_sha256", jefe("encoding", "hex", "equals", strings.ToUpper(mac)), "equal=true"},
		{"equal raw", "hmac_sha256", jefe("equals", string(macRaw)), "equal=true"},
		{"not equal", "hmac_sha256", jefe("encoding", "hex", "equals", abc), "equal=false"},
		{"a prefix", "hmac_sha256", jefe("encoding", "hex", "equals", mac[:62]), "equal=false"},
		{"empty", "hmac_sha256", jefe("encoding", "hex", "equals", ""), "equal=false"},
		{"no hexadecimal", "hmac_sha256", jefe("encoding", "hex", "equals", "zz"), "equal=false"},
		{"a line break", "hmac_sha256", jefe("encoding", "base64", "equals", base64.StdEncoding.EncodeToString(macRaw)+"\n"), "equal=false"},
		{"spare bits", "hmac_sha256", jefe("encoding", "base64url", "equals", base64.RawURLEncoding.EncodeToString(macRaw)[:42]+"N"), "equal=false"},
		{"named key", "hmac_sha256", []string{"key", "links", "data", "d", "encoding", "base64url", "equals", strings.TrimPrefix(own, "hash=")}, "equal=true"},
		{"key of another algorithm", "hmac_sha256", []string{"key", "strong", "data", "d"}, "bad argument"},
		{"public key", "hmac_sha256", []string{"key", "rsa", "data", "d"}, "bad argument"},
		{"unknown key", "hmac_sha256", []string{"key", "other", "data", "d"}, "not found"},
		{"key and secret", "hmac_sha256", []string{"key", "links", "secret", "x", "data", "d"}, "bad argument"},
		{"neither", "hmac_sha256", []string{"data", "d"}, "bad argument"},
	} {
		if got := call(t, g, "seawall."+test.call, test.args...); got != test.want {
			t.Errorf("%s: %q\ngot  %q\nwant %q", test.name, test.args, got, test.want)
		}
	}
}

func TestSignatures(t *testing.T) {
	s := someSigners(t)
	c := Config{Keys: map[string]Key{"rsa-any": {Public: pemOf(t, s.rsa.Public()), Algorithms: []string{"RS256", "PS256"}},
		"both": {Public: pemOf(t, s.ed.Public()) + pemOf(t, s.p256.Public())}}}
	const data = "what was signed"
	signature := make(map[string]string)
	for _, a := range AlgorithmNames() {
		c.Keys[strings.ToLower(a)] = s.public(t, a)
		raw, err := jwt.GetSigningMethod(a).Sign(data, s.key(a))
		if err != nil {
			t.Fatal(err)
		}
		signature[a] = string(raw)
	}
	g := granted(t, c, Options{})
	der := func(k *ecdsa.PrivateKey, sum []byte) string {
		text, err := ecdsa.SignASN1(rand.Reader, k, sum)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	sum256, sum384 := sha256.Sum256([]byte(data)), sha512.Sum384([]byte(data))
	type row struct {
		name string
		args []string
		want string
	}
	const no = "valid=false\nerror="
	rows := []row{
		{"in base64", []string{"key", "rs256", "data", data, "signature", base64.StdEncoding.EncodeToString([]byte(signature["RS256"])), "encoding", "base64"}, "valid=true"},
		{"in what is no base64", []string{"key", "rs256", "data", data, "signature", signature["RS256"], "encoding", "base64"}, no + "signature"},
		{"DER, P-256", []string{"key", "es256", "data", data, "signature", der(s.p256, sum256[:]), "format", "der"}, "valid=true"},
		{"DER, P-384", []string{"key", "es384", "data", data, "signature", der(s.p384, sum384[:]), "format", "der"}, "valid=true"},
		{"DER taken as raw", []string{"key", "es256", "data", data, "signature", der(s.p256, sum256[:])}, no + "signature"},
		{"raw taken as DER", []string{"key", "es256", "data", data, "signature", signature["ES256"], "format", "der"}, no + "signature"},
		{"DER of an Ed25519 key is as it is", []string{"key", "eddsa", "data", data, "signature", signature["EdDSA"], "format", "der"}, "valid=true"},
		{"one of several algorithms", []string{"key", "rsa-any", "data", data, "signature", signature["PS256"], "algorithm", "PS256"}, "valid=true"},
		{"none of several named", []string{"key", "rsa-any", "data", data, "signature", signature["PS256"]}, "bad argument"},
		{"the other algorithm", []string{"key", "rsa-any", "data", data, "signature", signature["PS256"], "algorithm", "RS256"}, no + "signature"},
		{"an algorithm it is not for", []string{"key", "rs256", "data", data, "signature", signature["PS256"], "algorithm", "PS256"}, no + "alg"},
		{"HMAC with a public key", []string{"key", "rs256", "data", data, "signature", signature["HS256"], "algorithm", "HS256"}, no + "alg"},
		{"one of two keys", []string{"key", "both", "data", data, "signature", signature["ES256"], "algorithm", "ES256"}, "valid=true"},
		{"the other of them", []string{"key", "both", "data", data, "signature", signature["EdDSA"], "algorithm", "EdDSA"}, "valid=true"},
		{"algorithm none", []string{"key", "rs256", "data", data, "signature", "", "algorithm", "none"}, "bad argument"},
		{"unknown key", []string{"key", "other", "data", data, "signature", "x"}, "not found"},
		{"unknown format", []string{"key", "es256", "data", data, "signature", "x", "format", "p1363"}, "bad argument"},
		{"no signature", []string{"key", "es256", "data", data}, "bad argument"},
	}
	for a, good := range signature {
		changed := good[:len(good)-1] + string(good[len(good)-1]^1)
		name := strings.ToLower(a)
		rows = append(rows, row{a, []string{"key", name, "data", data, "signature", good}, "valid=true"},
			row{a + ", changed", []string{"key", name, "data", data, "signature", changed}, no + "signature"},
			row{a + ", of other data", []string{"key", name, "data", data + ".", "signature", good}, no + "signature"},
			row{a + ", empty", []string{"key", name, "data", data, "signature", ""}, no + "signature"})
	}
	for _, test := range rows {
		if got := call(t, g, "seawall.verify", test.args...); got != test.want {
			t.Errorf("%s: %q\ngot  %q\nwant %q", test.name, test.args, got, test.want)
		}
	}
}
