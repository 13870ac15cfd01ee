package edgetest

import (
	"bytes"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decoded is body pieces as a client makes them out: of each as much as could
// be decoded when it had come. Bytes that do not decode are printed as they are.
func decoded(coding string, pieces []piece) []piece {
	var all []byte
	var out []piece
	before := 0
	for _, p := range pieces {
		all = append(all, p.data...)
		text, ok := undo(coding, all)
		if !ok {
			return pieces
		}
		out = append(out, piece{p.at, text[before:]})
		before = len(text)
	}
	return out
}

// undo decodes what is here of coded bytes; false when they are not coded so.
func undo(coding string, coded []byte) ([]byte, bool) {
	var r io.Reader
	switch coding {
	case "br":
		r = brotli.NewReader(bytes.NewReader(coded))
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(coded))
		if err != nil {
			return nil, false
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(bytes.NewReader(coded), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, false
		}
		defer z.Close()
		r = z
	default:
		return nil, false
	}
	text, err := io.ReadAll(r)
	return text, err == nil || err == io.ErrUnexpectedEOF
}

// gzipped is bytes in the coding gzip.
func gzipped(p []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(p) // a buffer does not fail
	_ = z.Close()     // nor here
	return b.Bytes()
}
