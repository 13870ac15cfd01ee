package main

import (
	"errors"

	"seawall/edge"
	"seawall/edge/encode"
)

// coderSettings are what the codings of all sites share.
type coderSettings struct {
	Coders     int   // 0 is encode's own default, as are those below
	Memory     int64 // bytes
	Background float64
	Ratio      int64
}

// encodeSettings are a site's compression.
type encodeSettings struct {
	On       bool
	Codings  []encode.Coding
	Types    []string
	MinSize  int64
	Personal bool
	Events   bool
}

func coderKeys() []key[coderSettings] {
	type s = coderSettings
	return []key[s]{
		{name: "coders", takes: one("a number from 1 to 4096", numbers(1, 4096), func(s *s) *int { return &s.Coders }),
			meaning: "how many compress at once; when none is free, clients get identity; without it, eight for each processor"},
		{name: "memory", takes: one("a size from 8MiB to 64GiB, as 64MiB", sizes(8*mib, 64<<10*mib), func(s *s) *int64 { return &s.Memory }),
			meaning: "what they may hold together, beside the cache's memory; without it, 4MiB for each"},
		{name: "background", def: "0.05", takes: one("a number from 0 to 1; 0 is none", parseFraction, func(s *s) *float64 { return &s.Background }),
			meaning: "the share of one processor that compressing hot responses again, better, may take"},
		{name: "decode_ratio", def: "100", takes: one("a number from 2 to 10000", parseRatio, func(s *s) *int64 { return &s.Ratio }),
			meaning: "how many bytes may come of each byte that an origin compressed, beyond the first 1MiB; more is cut off"},
	}
}

func parseRatio(text string) (int64, error) {
	n, err := numbers(2, 10_000)(text)
	return int64(n), err
}

func encodeKeys() []key[encodeSettings] {
	type s = encodeSettings
	return []key[s]{
		{name: "on", def: "true", takes: one("true or false", parseBool, func(s *s) *bool { return &s.On }),
			meaning: "compress for clients, and undo what an origin compressed for those that cannot"},
		{name: "codings", takes: many("br, zstd or gzip", parseCoding, func(s *s) *[]encode.Coding { return &s.Codings }),
			meaning: "which, the most liked first; without it, br, zstd, gzip for what is kept and zstd, gzip, br for what is not"},
		{name: "types", takes: many(`a media type, as application/json, text/* or "*+json"`, parseMediaType, func(s *s) *[]string { return &s.Types }),
			meaning: "what compresses; without it, text and the formats of the web that are text, tables or code inside"},
		{name: "min_size", def: "512B", takes: one("a size from 1B to 1MiB, as 512B", sizes(1, mib), func(s *s) *int64 { return &s.MinSize }),
			meaning: "the smallest response that is worth it"},
		{name: "personal", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Personal }),
			meaning: "also what is made for a single client: only where pages do not show what a request says (BREACH)"},
		{name: "event_streams", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Events }),
			meaning: "also event streams, each event flushed by itself"},
	}
}

func parseCoding(text string) (encode.Coding, error) {
	switch c, _ := encode.Parse(text); c {
	case encode.Brotli, encode.Zstd, encode.Gzip:
		return c, nil
	}
	return encode.Identity, errors.New("is no coding that the node makes")
}

func parseMediaType(text string) (string, error) {
	_, err := encode.NewTypes(text)
	return text, err
}

// edge is the compression as a Handler takes it; nil when it is off.
func (s *encodeSettings) edge() *edge.Encode {
	if !s.On {
		return nil
	}
	e := &edge.Encode{Prefer: s.Codings, Events: s.Events}
	e.MinSize, e.Personal = s.MinSize, s.Personal
	if s.Types != nil {
		e.Types, _ = encode.NewTypes(s.Types...) // each was read before
	}
	return e
}

// into gives a Handler what its sites' codings are made with. The coders of
// the generation before go on, where nothing about them has changed.
func (s *coderSettings) into(c *edge.Config, old *generation) {
	c.Recode, c.Decode.Ratio = s.Background, s.Ratio
	if old != nil && old.handler != nil && old.settings.Encode.Coders == s.Coders && old.settings.Encode.Memory == s.Memory {
		c.Coders, c.Decoders = old.handler.Coders, old.handler.Decoders
		return
	}
	c.Coders, c.Decoders = encode.NewCoders(s.Coders, s.Memory), encode.NewDecoders(0)
}
