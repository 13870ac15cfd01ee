package purge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// record is one message of the log.
type record struct {
	Version int       `json:"v"`
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	At      time.Time `json:"at"`
	// Key is the SHA-256 of the idempotency key in hexadecimal.
	Key     string  `json:"key,omitempty"`
	Request Request `json:"request"`
	// Forms are the normal forms that the accepting node gave to each URL: a
	// later configuration may give others, while what is stored under these
	// must still go.
	Forms map[string][][4]string `json:"forms,omitempty"`
}

const recordVersion = 1

// recordBytes bounds a record; what is left of the message is for its header.
const recordBytes = messageBytes - 4<<10

// tooLong refuses a request whose record is too long. Its names may be within
// their bounds: their normal forms and the escapes of JSON make more of them.
func tooLong(r *Request, size int) error {
	field, most := "", -1
	for _, l := range r.lists() {
		sum := 0
		for _, w := range l.words {
			sum += len(w)
		}
		if sum > most {
			field, most = l.name, sum
		}
	}
	return &InvalidError{[]*FieldError{{
		Field:  field,
		Detail: fmt.Sprintf("%d bytes with all normal forms and escapes; one call may have %d: name fewer in each", size, recordBytes),
	}}}
}

// remembering returns normal with what it answers noted in the record.
func (rec *record) remembering(normal Normal) Normal {
	rec.Forms = map[string][][4]string{}
	return func(raw string) ([]URL, error) {
		all, err := normal(raw)
		if err == nil {
			forms := make([][4]string, len(all))
			for i, u := range all {
				forms[i] = [4]string{u.Scheme, u.Host, u.Path, u.Query}
			}
			rec.Forms[raw] = forms
		}
		return all, err
	}
}

// normal returns the forms that the record has and those of this node.
func (rec *record) normal(here Normal) Normal {
	return func(raw string) ([]URL, error) {
		all, err := here(raw)
		if err != nil {
			all = nil
		}
		all = slices.Clone(all)
		for _, f := range rec.Forms[raw] {
			u := URL{f[0], f[1], f[2], f[3]}
			if !slices.Contains(all, u) {
				all = append(all, u)
			}
		}
		if len(all) > 0 {
			return all, nil
		}
		return nil, err
	}
}

func (rec *record) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(rec); err != nil {
		return nil, fmt.Errorf("purge: encode: %w", err)
	}
	return b.Bytes(), nil
}

// decode returns what a message says, ready to be applied.
func decode(data []byte, here Normal) (*record, *Prepared, error) {
	rec := &record{}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, nil, err
	}
	if rec.Version != recordVersion || rec.ID == "" {
		return nil, nil, fmt.Errorf("version %d, id %q", rec.Version, rec.ID)
	}
	p, errs := Prepare(rec.Request, rec.normal(here))
	if errs != nil {
		return nil, nil, &InvalidError{errs}
	}
	return rec, p, nil
}

// key returns the record's idempotency key, nil where it has none.
func (rec *record) key() *digest {
	var d digest
	if n, err := hex.Decode(d[:], []byte(rec.Key)); n != len(d) || err != nil {
		return nil
	}
	return &d
}

// digestOf tells one request from another under the same key.
func digestOf(r Request) (digest, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return digest{}, errors.Join(errors.New("purge: encode"), err)
	}
	return sha256.Sum256(text), nil
}
