package admin

import (
	"net/http"
	"strings"

	"seawall/purge"
)

// Fastly's purge calls, as its API reference describes them.

type fastlyAnswer struct {
	Status string `json:"status"`
	ID     string `json:"id"`
}

// fastlyURL is POST /purge/{host}/{path}: one URL, in both schemes.
func fastlyURL(c *call) {
	at := strings.TrimPrefix(target(c.r), "/purge/")
	urls := []string{"http://" + at, "https://" + at}
	if strings.HasPrefix(at, "http://") || strings.HasPrefix(at, "https://") {
		urls = []string{at}
	}
	c.fastly(purge.Request{URLs: urls})
}

// fastlyKey is POST /service/{service}/purge/{key}: one tag.
func fastlyKey(c *call) { c.fastly(purge.Request{Tags: []string{c.args["key"]}}) }

// fastlyAll is POST /service/{service}/purge_all.
func fastlyAll(c *call) { c.fastly(purge.Request{Everything: true}) }

// fastlyKeys is POST /service/{service}/purge: the tags of Surrogate-Key, or
// of the content's surrogate_keys.
func fastlyKeys(c *call) {
	tags := words(c.r.Header["Surrogate-Key"], " ")
	if len(tags) == 0 {
		f := c.readFields(maxBody)
		if f == nil {
			return
		}
		f.list("surrogate_keys", &tags)
		if errs := f.done(); len(errs) > 0 {
			c.invalid(errs...)
			return
		}
	}
	if len(tags) == 0 {
		c.invalid(&purge.FieldError{Field: "surrogate_keys", Detail: "names no tag, nor does Surrogate-Key"})
		return
	}
	r := purge.Request{Tags: tags, Soft: softPurge(c.r.Header)}
	if receipt, ok := c.dialect(r, c.args["service"]); ok {
		ids := make(map[string]string)
		for _, tag := range tags {
			ids[tag] = receipt.ID
		}
		c.ok(http.StatusOK, ids)
	}
}

func (c *call) fastly(r purge.Request) {
	r.Soft = softPurge(c.r.Header)
	if receipt, ok := c.dialect(r, c.args["service"]); ok {
		c.ok(http.StatusOK, fastlyAnswer{"ok", receipt.ID})
	}
}
