// Package encode negotiates, compresses and decompresses content codings
// (RFC 9110, 8.4). It decides nothing about storing and sends nothing: it offers
// what a walk needs to keep one object in a few codings.
//
//   - Accept reads Accept-Encoding once per request; Accepted.Choose picks among
//     what is stored and what could be made.
//   - Policy.Judge says whether a response may be coded at all, and why not.
//   - Coders hands out pooled streaming encoders, within a number and a memory
//     budget; when none is free the caller sends identity.
//   - Best compresses slowly and densely, in steps that a budget can pace.
//   - Decoders undo what an origin coded, within limits that stop bombs.
//   - SetCoded, Tag, StripTags and MergeVary keep validators and Vary right.
//
// # What a coded representation is
//
// Its bytes are the node's own and may be replaced by better ones at any time,
// so its entity tag is weak, it never serves ranges, and a condition about it is
// answered by the validators of identity (StripTags). Accept-Encoding is never
// part of a key: any request is served by at most one stored representation per
// coding.
//
// # BREACH
//
// The length of a compressed response tells whether two parts of it are alike.
// If a response holds a secret (a token against forged requests, an address) and
// also text that an attacker chose, the attacker makes the victim's browser ask
// again and again, watches the length on the wire, and learns the secret byte by
// byte. TLS does not help. A response that may be stored by a shared cache holds
// no one's secret, so compressing it gives nothing away. One that is made for a
// single client may: Exposed names those, and Policy.Judge refuses to code them
// unless the site says that they reflect no input (Policy.Personal). What the
// origin coded itself is passed on as it is: that choice was the origin's.
package encode
