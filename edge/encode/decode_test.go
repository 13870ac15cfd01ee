package encode

import (
	"bytes"
	stdflate "compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// form is content under codings as an origin may send it.
type form struct {
	name  string
	stack []Coding
	of    func(t testing.TB, content []byte) []byte
}

func forms() []form {
	own := func(cs ...Coding) func(testing.TB, []byte) []byte {
		return func(t testing.TB, content []byte) []byte {
			for _, c := range cs {
				content = coded(t, NewCoders(1, 0), c, content)
			}
			return content
		}
	}
	return []form{
		{"gzip", []Coding{Gzip}, own(Gzip)},
		{"br", []Coding{Brotli}, own(Brotli)},
		{"zstd", []Coding{Zstd}, own(Zstd)},
		{"deflate with zlib", []Coding{Deflate}, func(t testing.TB, content []byte) []byte {
			var b bytes.Buffer
			w := zlib.NewWriter(&b)
			_, _ = w.Write(content)
			_ = w.Close()
			return b.Bytes()
		}},
		{"deflate alone", []Coding{Deflate}, func(t testing.TB, content []byte) []byte {
			var b bytes.Buffer
			w, _ := stdflate.NewWriter(&b, 6)
			_, _ = w.Write(content)
			_ = w.Close()
			return b.Bytes()
		}},
		{"zstd with a checksum", []Coding{Zstd}, func(t testing.TB, content []byte) []byte {
			w, _ := zstd.NewWriter(nil)
			defer w.Close()
			return w.EncodeAll(content, nil)
		}},
		{"gzip with a name", []Coding{Gzip}, func(t testing.TB, content []byte) []byte {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			w.Name, w.Comment, w.Extra = "page.html", "a comment", []byte("extra")
			_, _ = w.Write(content)
			_ = w.Close()
			return b.Bytes()
		}},
		{"gzip, br", []Coding{Gzip, Brotli}, own(Gzip, Brotli)},
		{"gzip, gzip", []Coding{Gzip, Gzip}, own(Gzip, Gzip)},
		{"br, zstd, gzip", []Coding{Brotli, Zstd, Gzip}, own(Brotli, Zstd, Gzip)},
	}
}

// readers are ways in which the same bytes may arrive.
func readers(content []byte) map[string]io.Reader {
	return map[string]io.Reader{
		"at once":          bytes.NewReader(content),
		"byte by byte":     iotest.OneByteReader(bytes.NewReader(content)),
		"EOF with the end": iotest.DataErrReader(bytes.NewReader(content)),
	}
}

func TestDecodersReadWhatOriginsSend(t *testing.T) {
	content := page(5000)
	for _, f := range forms() {
		for how, src := range readers(f.of(t, content)) {
			back, err := decoded(f.stack, src)
			if err != nil || !bytes.Equal(back, content) {
				t.Errorf("%s, %s: %d bytes, got %d, error %v", f.name, how, len(content), len(back), err)
			}
		}
	}
}

// TestSeveralInARow reads gzip members and zstd frames that follow one another,
// whole, and cut anywhere but between them.
func TestSeveralInARow(t *testing.T) {
	skippable := []byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc")
	for _, f := range forms() {
		if len(f.stack) > 1 || f.stack[0] != Gzip && f.stack[0] != Zstd {
			continue
		}
		one, two := f.of(t, []byte("one ")), f.of(t, []byte("two"))
		both := bytes.Clone(one)
		ends := map[int]bool{0: true, len(one): true}
		if f.stack[0] == Zstd {
			both = append(both, skippable...)
			ends[len(both)] = true
		}
		both = append(both, two...)
		for how, src := range readers(both) {
			if back, err := decoded(f.stack, src); err != nil || string(back) != "one two" {
				t.Errorf("%s, %s: got %q, %v, want \"one two\"", f.name, how, back, err)
			}
		}
		for n := range both {
			for how, src := range readers(both[:n]) {
				if _, err := decoded(f.stack, src); !ends[n] && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s cut to %d of %d, %s: error %v", f.name, n, len(both), how, err)
				}
			}
		}
	}
}

func TestEveryCutIsUnexpectedEOF(t *testing.T) {
	content := page(700)
	for _, f := range forms() {
		whole := f.of(t, content)
		for n := range whole {
			for how, src := range readers(whole[:n]) {
				if back, err := decoded(f.stack, src); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s cut to %d of %d, %s: %d bytes, error %v", f.name, n, len(whole), how, len(back), err)
				}
			}
		}
	}
}

func TestWhatFollowsTheEndIsMalformed(t *testing.T) {
	content := page(700)
	for _, f := range forms() {
		for _, tail := range []string{"\x00", "x", "\x1f", "\x28\xb5", strings.Repeat("garbage", 10_000)} {
			for how, src := range readers(append(bytes.Clone(f.of(t, content)), tail...)) {
				_, err := decoded(f.stack, src)
				// What may begin another member or frame is one that was cut.
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s and %.10q, %s: error %v", f.name, tail, how, err)
				}
			}
		}
	}
}

func TestErrorsOfTheSourceComeThrough(t *testing.T) {
	content := page(700)
	for _, f := range forms() {
		whole := f.of(t, content)
		for n := range len(whole) + 1 {
			// The second is what a body says that broke off.
			for _, broken := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF} {
				src := io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken))
				if _, err := decoded(f.stack, src); !errors.Is(err, broken) {
					t.Errorf("%s: source broke after %d of %d: error %v, want %v", f.name, n, len(whole), err, broken)
				}
			}
		}
	}
}

func TestFlippedBitsAreNeverAnotherContent(t *testing.T) {
	content := page(700)
	for _, f := range forms() {
		if f.name == "br" || f.name == "zstd" || f.name == "deflate alone" {
			continue // without a checksum
		}
		whole := f.of(t, content)
		for i := range whole {
			bent := bytes.Clone(whole)
			bent[i] ^= 0x10
			if back, err := decoded(f.stack, bytes.NewReader(bent)); err == nil && !bytes.Equal(back, content) {
				t.Errorf("%s, byte %d bent: %d bytes of other content without an error", f.name, i, len(back))
			}
		}
	}
}

// zeros is n zero bytes.
type zeros int64

func (z *zeros) Read(p []byte) (int, error) {
	if *z == 0 {
		return 0, io.EOF
	}
	n := min(int(*z), len(p))
	clear(p[:n])
	*z -= zeros(n)
	return n, nil
}

// bomb is size zeros under the codings.
func bomb(t testing.TB, size int64, stack ...Coding) []byte {
	var out []byte
	src := io.Reader(new(zeros(size)))
	for _, c := range stack {
		var b bytes.Buffer
		e, ok := NewCoders(1, 0).Acquire(c, Unknown, &b)
		if !ok {
			t.Fatal("none free")
		}
		if _, err := io.Copy(e, src); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		out = b.Bytes()
		src = bytes.NewReader(out)
	}
	return out
}

func TestBombsAreCut(t *testing.T) {
	size := int64(16 << 20)
	if os.Getenv("SEAWALL_LONG") != "" {
		size = 1 << 30
	}
	tests := []struct {
		name   string
		stack  []Coding
		limits Limits
		most   func(in int64) int64
	}{
		{"gzip", []Coding{Gzip}, Limits{}, func(in int64) int64 { return 1<<20 + 100*in }},
		{"br", []Coding{Brotli}, Limits{}, func(in int64) int64 { return 1<<20 + 100*in }},
		{"zstd", []Coding{Zstd}, Limits{}, func(in int64) int64 { return 1<<20 + 100*in }},
		{"zstd, gzip", []Coding{Zstd, Gzip}, Limits{}, func(in int64) int64 { return 1<<20 + 100*in }},
		{"gzip, gzip", []Coding{Gzip, Gzip}, Limits{}, func(in int64) int64 { return 1<<20 + 100*in }},
		{"own ratio", []Coding{Gzip}, Limits{Ratio: 10, Grace: -1}, func(in int64) int64 { return 10 * in }},
		{"size", []Coding{Gzip}, Limits{Ratio: -1, Size: 3 << 20}, func(int64) int64 { return 3 << 20 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := NewDecoders(0).NewReader(tt.stack, bytes.NewReader(bomb(t, size, tt.stack...)), tt.limits)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			n, err := io.Copy(io.Discard, d)
			if !errors.Is(err, ErrBomb) || n > tt.most(d.Consumed()) {
				t.Errorf("%d bytes from %d, error %v; want at most %d and %v", n, d.Consumed(), err, tt.most(d.Consumed()), ErrBomb)
			}
			if _, again := d.Read(make([]byte, 1)); !errors.Is(again, ErrBomb) {
				t.Errorf("read after the bomb: %v", again)
			}
		})
	}
}

func TestAllowedNeverOverflows(t *testing.T) {
	const most = int64(^uint64(0) >> 1)
	tests := []struct {
		limits   Limits
		in, want int64
	}{
		{Limits{}, 0, 1 << 20},
		{Limits{}, 10, 1<<20 + 1000},
		{Limits{}, most, most},
		{Limits{Ratio: most}, 3, most},
		{Limits{Grace: most}, 3, most},
		{Limits{Ratio: -1}, 0, most},
		{Limits{Ratio: -1, Size: 5}, 0, 5},
		{Limits{Ratio: 2, Grace: -1}, 7, 14},
		{Limits{Ratio: 2, Grace: -1, Size: 9}, 7, 9},
	}
	for _, tt := range tests {
		if got := tt.limits.allowed(tt.in); got != tt.want {
			t.Errorf("%+v, %d read: allowed %d, want %d", tt.limits, tt.in, got, tt.want)
		}
	}
}

func TestZstdWindowsPastEightMebibytesAreRefused(t *testing.T) {
	content := bytes.Repeat(page(1<<20), 17)
	for window, want := range map[int]error{8 << 20: nil, 16 << 20: ErrBomb} {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(content)
		_ = w.Close()
		if _, err := decoded([]Coding{Zstd}, &b); !errors.Is(err, want) {
			t.Errorf("window of %d: error %v, want %v", window, err, want)
		}
	}
}

func TestDecodersAreBounded(t *testing.T) {
	ds := NewDecoders(3)
	open := func(stack ...Coding) (*Decoder, error) {
		return ds.NewReader(stack, strings.NewReader(""), Limits{})
	}
	a, err := open(Gzip, Brotli)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(Zstd, Gzip); !errors.Is(err, ErrBusy) {
		t.Errorf("two more of three: %v, want %v", err, ErrBusy)
	}
	b, err := open(Zstd)
	if err != nil {
		t.Errorf("one more of three: %v", err)
	}
	for _, d := range []*Decoder{a, a, b} {
		_ = d.Close()
	}
	if n := ds.Busy(); n != 0 {
		t.Errorf("%d busy after all were closed, one of them twice", n)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("read after Close: %v, want %v", err, ErrClosed)
	}
	for _, stack := range [][]Coding{nil, {Identity}, {codings}, {Gzip, Gzip, Gzip, Gzip}} {
		if _, err := ds.NewReader(stack, strings.NewReader(""), Limits{}); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v: %v, want %v", stack, err, ErrUnknown)
		}
	}
}

func TestUsedDecodersReadTheNext(t *testing.T) {
	ds := NewDecoders(0)
	content := page(100_000)
	for _, f := range forms() {
		whole := f.of(t, content)
		bent := bytes.Clone(whole)
		bent[len(bent)/2] ^= 0x55
		for i, src := range [][]byte{whole, bent, whole[:len(whole)/3], whole} {
			d, err := ds.NewReader(f.stack, bytes.NewReader(src), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(d)
			_ = d.Close()
			if i%3 == 0 && (err != nil || !bytes.Equal(back, content)) {
				t.Errorf("%s, use %d: %d bytes, got %d, error %v", f.name, i+1, len(content), len(back), err)
			}
		}
	}
}
