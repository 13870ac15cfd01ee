package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
)

// An object is something that the origin has. Its name says everything of it, so
// that who receives a body can tell whether it is the right one.
type object struct {
	policy  string
	size    int
	id      int
	version int // of the soak's objects, which change; else 0
}

// path returns its target at the origin and at every cache in front.
func (o object) path() string {
	return "/" + o.policy + "/" + strconv.Itoa(o.size) + "/" + strconv.Itoa(o.id)
}

// etag returns its strong validator, which names the version too.
func (o object) etag() string {
	return fmt.Sprintf(`"%s-%d-%d-%d"`, o.policy, o.size, o.id, o.version)
}

// maxBody bounds the size of an object.
const maxBody = 1 << 20

// parseObject reads a path, version 0.
func parseObject(path string) (object, error) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) != 3 || !strings.HasPrefix(path, "/") {
		return object{}, errors.New("want /POLICY/SIZE/ID")
	}
	size, err := strconv.Atoi(parts[1])
	if err != nil || size < 0 || size > maxBody {
		return object{}, fmt.Errorf("size %q is not from 0 to %d", parts[1], maxBody)
	}
	id, err := strconv.Atoi(parts[2])
	if err != nil || id < 0 {
		return object{}, fmt.Errorf("id %q is no number", parts[2])
	}
	return object{policy: parts[0], size: size, id: id}, nil
}

// parseVersion returns the version in an ETag of o.
func (o object) parseVersion(etag string) (int, error) {
	prefix := strings.TrimSuffix(object{policy: o.policy, size: o.size, id: o.id}.etag(), `0"`)
	rest, ok := strings.CutPrefix(etag, prefix)
	rest, closed := strings.CutSuffix(rest, `"`)
	version, err := strconv.Atoi(rest)
	if !ok || !closed || err != nil {
		return 0, fmt.Errorf("ETag %s is of something else than %s", etag, o.path())
	}
	return version, nil
}

// patterns is the noise that every body is a piece of. Nothing writes to it.
type patterns []byte

func newPatterns() patterns {
	p := make(patterns, 2*maxBody)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	return p
}

// body returns the bytes of o, which are not to be changed. Bodies of other
// objects and other versions begin elsewhere in the noise.
func (p patterns) body(o object) []byte {
	h := fnv.New64a()
	h.Write([]byte(o.etag()))
	at := h.Sum64() % maxBody
	return p[at : at+uint64(o.size)]
}

// verify tells how got differs from the body of o, or from its piece at offset
// when it is a range.
func (p patterns) verify(o object, got []byte, offset, length int) error {
	want := p.body(o)[offset : offset+length]
	if len(got) != len(want) {
		return fmt.Errorf("%s version %d: got %d bytes, want %d", o.path(), o.version, len(got), len(want))
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				return fmt.Errorf("%s version %d: wrong byte at %d of %d", o.path(), o.version, offset+i, o.size)
			}
		}
	}
	return nil
}
