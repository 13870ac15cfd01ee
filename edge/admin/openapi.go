package admin

import (
	_ "embed"
)

// description is the whole API in OpenAPI's words.
//
//go:embed openapi.yaml
var description []byte

// describe is GET /openapi.yaml.
func describe(c *call) {
	c.w.Header().Set("Content-Type", "application/yaml")
	c.w.Write(description) // a client that has gone needs no answer
}
