package edge

import (
	"net/http"
	"strings"
	"time"

	"seawall/edge/encode"
	"seawall/edge/store"
)

// Stored is what is kept of one response.
type Stored struct {
	// URL is the key, Variant the request fields that select this one.
	URL     string `json:"url"`
	Variant string `json:"variant"`
	Status  int    `json:"status"`
	// Size is the length of the content, in bytes.
	Size int64 `json:"size"`
	// Codings are the other forms that it is kept in, beside Size.
	Codings []StoredCoding `json:"codings"`
	// Age and TTL are in seconds; a negative TTL is for how long it is stale.
	Age   float64  `json:"age"`
	TTL   float64  `json:"ttl"`
	Fresh bool     `json:"fresh"`
	Tags  []string `json:"tags"`
	ETag  string   `json:"etag"`
	// Tier is where it is kept: "memory".
	Tier     string    `json:"tier"`
	StoredAt time.Time `json:"stored_at"`
	// Epoch is the purge epoch when it was asked for.
	Epoch uint64 `json:"epoch"`
	// Purged is "", "soft" (stale), "doubtful" (to be validated before use) or
	// "hard" (never used again).
	Purged string `json:"purged"`
}

// StoredCoding is one coding of a stored response.
type StoredCoding struct {
	// Coding is br, zstd or gzip; identity is what the node undid of a coding of
	// the origin's.
	Coding string `json:"coding"`
	Size   int64  `json:"size"`
	// Best is true when it was made again behind, as dense as it gets.
	Best bool `json:"best"`
}

func codingsOf(o *Object) []StoredCoding {
	all := []StoredCoding{}
	if o.Forms == nil {
		return all
	}
	for i := range forms {
		if f := o.Forms.At(i); f != nil && f.Kept() {
			all = append(all, StoredCoding{encode.Coding(i).String(), f.Body.Size(), f.Level == levelBest})
		}
	}
	return all
}

// Stored returns all that is stored for an absolute URL, the most recent first;
// none is no error. It leaves no trace in statistics, nor in what stays.
func (h *Handler) Stored(rawURL string) ([]Stored, error) {
	u, err := h.locate(rawURL)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	all := []Stored{}
	h.Store.Variants(h.Store.Hash(u.key), u.key, func(o *Object) {
		all = append(all, h.describe(o, now))
	})
	return all, nil
}

func (h *Handler) describe(o *Object, now time.Time) Stored {
	t, verdict := h.softened(o)
	fresh := t.Fresh(now) && !o.Invalid() && verdict != store.Gone
	tags := o.Meta.Subject.Tags
	if tags == nil {
		tags = []string{}
	}
	return Stored{
		URL: o.Key, Variant: variantText(o), Status: o.Meta.Status, Size: o.Body.Size(), Codings: codingsOf(o),
		Age: t.Age(now).Seconds(), TTL: t.TTL(now).Seconds(), Fresh: fresh,
		Tags: tags, ETag: o.Meta.Validators.ETag, Tier: "memory", StoredAt: o.Meta.Checked,
		Epoch: o.Epoch, Purged: purgedWord(verdict),
	}
}

func purgedWord(v store.Verdict) string {
	switch v {
	case store.Soft:
		return "soft"
	case store.Doubtful:
		return "doubtful"
	case store.Gone:
		return "hard"
	}
	return ""
}

// headerFor returns request fields that select o: those of its key parts and of
// its Vary.
func headerFor(o *Object) http.Header {
	h := http.Header{}
	for part := range strings.SplitSeq(o.Meta.Parts, "\n") {
		name, value, _ := strings.Cut(part, "=")
		if value == "" {
			continue
		}
		if cookie, ok := strings.CutPrefix(name, "cookie "); ok {
			h.Add("Cookie", cookie+"="+value)
		} else {
			h.Add(name, value)
		}
	}
	for _, s := range selectors(o) {
		if !s.absent {
			h.Set(s.name, s.value)
		}
	}
	return h
}
