//go:build wasip1 && !guestcrypto

package main

import (
	"errors"
	"slices"
	"strconv"

	"seawall/wasm/examples/guest"
)

// fixed are the arguments of every call.
var fixed []string

// prepare makes sure that the node has the key for this function.
func prepare() error {
	fixed = []string{"key", key, "leeway", strconv.Itoa(asked.leeway)}
	for name, values := range map[string][]string{"issuer": asked.issuers, "audience": asked.audiences, "require": asked.required} {
		for _, v := range values {
			fixed = append(fixed, name, v)
		}
	}
	for _, c := range asked.claims {
		fixed = append(fixed, "claim."+c[0], c[1])
	}
	if asked.unending {
		fixed = append(fixed, "expiration", "optional")
	}
	fixed = slices.Clip(fixed)
	if _, ok := guest.Call("seawall.jwt_verify", guest.Pairs(append(fixed, "token", "none")...)); !ok {
		return errors.New("the node has no key " + key + " for this function; add it to keys, and to the function's keys")
	}
	return nil
}

// verify returns the claims of a token, as a map of claim.NAME, or what is
// wrong with it.
func verify(token string) (claims, fault string) {
	result, ok := guest.Call("seawall.jwt_verify", guest.Pairs(append(fixed, "token", token)...))
	switch {
	case !ok:
		guest.Log(guest.Error, "the node does not verify tokens with key "+key)
		return "", faultUnavailable
	case guest.Pick(result, "valid") != "true":
		return "", guest.Pick(result, "error")
	}
	return result, faultNone
}
