package admin

import (
	"encoding/json"
	"net/http"

	"seawall/purge"
)

// Cloudflare's purge call, as its API reference describes it.

// cloudflareBody is the envelope of every answer.
type cloudflareBody struct {
	Success  bool              `json:"success"`
	Errors   []cloudflareError `json:"errors"`
	Messages []string          `json:"messages"`
	Result   *cloudflareResult `json:"result"`
}

type cloudflareError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type cloudflareResult struct {
	ID string `json:"id"`
}

// The codes that its clients know.
const (
	codeInvalid        = 1012  // what to purge is not right
	codeAuthentication = 10000 // no token, or one that may not
	codeOther          = 1000
)

// cloudflareFailure is the envelope of a failure.
func cloudflareFailure(status int, detail string, fields []*purge.FieldError) cloudflareBody {
	code := codeOther
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = codeAuthentication
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		code = codeInvalid
	}
	b := cloudflareBody{Errors: []cloudflareError{}, Messages: []string{}}
	for _, f := range fields {
		b.Errors = append(b.Errors, cloudflareError{code, f.Error()})
	}
	if len(fields) == 0 {
		b.Errors = append(b.Errors, cloudflareError{code, detail})
	}
	return b
}

// cloudflarePurge is POST /client/v4/zones/{zone}/purge_cache.
func cloudflarePurge(c *call) {
	f := c.readFields(maxBody)
	if f == nil {
		return
	}
	var r purge.Request
	f.each("files", "URLs", func(at string, item json.RawMessage) {
		if url, ok := f.file(at, item); ok {
			r.URLs = append(r.URLs, url)
		}
	})
	f.list("tags", &r.Tags)
	f.list("hosts", &r.Hosts)
	f.list("prefixes", &r.Prefixes)
	f.flag("purge_everything", &r.Everything)
	c.what = sayPurge(&r, false)
	if errs := f.done(); len(errs) > 0 {
		c.invalid(errs...)
		return
	}
	if receipt, ok := c.dialect(r, c.args["zone"]); ok {
		c.ok(http.StatusOK, cloudflareBody{
			Success: true, Errors: []cloudflareError{}, Messages: []string{}, Result: &cloudflareResult{receipt.ID},
		})
	}
}

// file reads one of files: a URL, or an object with one. Its headers choose a
// variant there; here a purge takes all.
func (f *fields) file(at string, item json.RawMessage) (url string, ok bool) {
	if item[0] == '"' {
		return url, json.Unmarshal(item, &url) == nil
	}
	inner, bad := parseFields(item)
	if bad != nil {
		f.fault(at, "is %s where a URL, or an object with url, is wanted", kindOf(item))
		return "", false
	}
	inner.text("url", &url)
	var headers map[string]string
	scalar(inner, "headers", "an object of strings", "{", &headers)
	if _, given := inner.raw["url"]; !given {
		inner.fault("url", "is missing")
	}
	for _, e := range inner.done() {
		f.fault(at+"."+e.Field, "%s", e.Detail)
	}
	return url, len(inner.errs) == 0
}
