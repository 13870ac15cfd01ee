// Package encode negotiates, compresses and decompresses content codings.
//
// It is not built yet: origins are asked for identity.
package encode
