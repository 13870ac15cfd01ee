//go:build !linux

package wasm

import "github.com/tetratelabs/wazero/experimental"

// trackedSnapshot is a size that no snapshot has: all is copied.
const trackedSnapshot = 1 << 40

type pagemap struct{}

func openPagemap() *pagemap { return nil }

func (*pagemap) close() {}

type image struct{}

func newImage(*pagemap, []byte) *image { return nil }

func (*image) close() {}

func (*image) attach(experimental.LinearMemory) (*tracker, error) { return nil, nil }

type tracker struct{}

func (*tracker) restore(_, _ []byte) bool { return false }
