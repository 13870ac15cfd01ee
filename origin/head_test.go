package origin

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestHeadInspection(t *testing.T) {
	tests := []struct{ name, head, want string }{
		{"plain", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", ""},
		{"no reason", "HTTP/1.1 200 \r\n\r\n", ""},
		{"no space after the status", "HTTP/1.1 200\r\n\r\n", ""},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", ""},
		{"obs-text", "HTTP/1.1 200 \xe9\r\nA: \xe9\r\n\r\n", ""},
		{"empty value", "HTTP/1.1 200 OK\r\nA:\r\nB: \t \r\n\r\n", ""},
		{"same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length:5 \r\n\r\n", ""},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\n", ""},
		{"unknown status", "HTTP/1.1 799 X\r\n\r\n", ""},

		{"leading empty line", "\r\nHTTP/1.1 200 OK\r\n\r\n", protocolError},
		{"bare LF", "HTTP/1.1 200 OK\nA: b\n\n", protocolError},
		{"bare LF in a field", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", protocolError},
		{"bare LF at the end", "HTTP/1.1 200 OK\r\nA: b\r\n\n", protocolError},
		{"bare CR in a value", "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", protocolError},
		{"CR CR LF", "HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n", protocolError},
		{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", protocolError},
		{"NUL in a value", "HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n", protocolError},
		{"NUL in a name", "HTTP/1.1 200 OK\r\nA\x00: b\r\n\r\n", protocolError},
		{"obs-fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", protocolError},
		{"fold on the first field", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", protocolError},
		{"space before the colon", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", protocolError},
		{"tab before the colon", "HTTP/1.1 200 OK\r\nContent-Length\t: 5\r\n\r\n", protocolError},
		{"no colon", "HTTP/1.1 200 OK\r\nA\r\n\r\n", protocolError},
		{"empty name", "HTTP/1.1 200 OK\r\n: b\r\n\r\n", protocolError},
		{"name above ASCII", "HTTP/1.1 200 OK\r\n\xc3\xa9: b\r\n\r\n", protocolError},
		{"differing lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", protocolError},
		{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", protocolError},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", protocolError},
		{"signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", protocolError},
		{"empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", protocolError},
		{"hex length", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n", protocolError},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", protocolError},
		{"length and unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\nContent-Length: 5\r\n\r\n", protocolError},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", protocolError},
		{"coding under chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", responseCoding},
		{"coding over chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", responseCoding},
		{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", responseCoding},
		{"chunked with a parameter", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked ;a=b\r\n\r\n", responseCoding},
		{"interim with a length", "HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n", protocolError},
		{"interim with a coding", "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n", protocolError},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", protocolError},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", protocolError},
		{"lower case", "http/1.1 200 OK\r\n\r\n", protocolError},
		{"ICY", "ICY 200 OK\r\n\r\n", protocolError},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", protocolError},
		{"short status", "HTTP/1.1 20 OK\r\n\r\n", protocolError},
		{"long status", "HTTP/1.1 2000 OK\r\n\r\n", protocolError},
		{"low status", "HTTP/1.1 099 OK\r\n\r\n", protocolError},
		{"signed status", "HTTP/1.1 +20 OK\r\n\r\n", protocolError},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", protocolError},
		{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A:\r\n", maxFields+1) + "\r\n", responseHeadSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole, err := new(head).scan([]byte(tt.head))
			if kind(err) != tt.want || whole && err != nil && tt.want == "" {
				t.Errorf("head %q: got whole %v, error %v, want kind %q", tt.head, whole, err, tt.want)
			}
			if tt.want == "" && !whole {
				t.Errorf("head %q: not whole", tt.head)
			}
		})
	}
}

func TestUnknownCodingLinesAreRemoved(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\nA: b\r\ntransfer-encoding: bar\r\n\r\nbody"
	h := new(head)
	if whole, err := h.scan([]byte(in)); !whole || err != nil || !h.unknown {
		t.Fatalf("%q: got whole %v, unknown %v, %v", in, whole, h.unknown, err)
	}
	if got, want := string(h.withoutCodings([]byte(in))), "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzHead checks that how a head arrives does not change what it means, and
// that net/http agrees about every head that is accepted.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		hello, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0 304 \r\nConnection: close, x\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\nPragma: no-cache\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		h := new(head)
		whole, err := h.scan(in)
		slow := new(head)
		slowWhole, slowErr := false, error(nil)
		for n := 0; n < len(in) && !slowWhole && slowErr == nil; {
			n = min(n+int(step)+1, len(in))
			slowWhole, slowErr = slow.scan(in[:n])
		}
		if whole != slowWhole || kind(err) != kind(slowErr) || whole && (h.end != slow.end || h.status != slow.status) {
			t.Fatalf("%q: at once %v %v, in steps of %d %v %v", in, whole, err, step+1, slowWhole, slowErr)
		}
		if !whole || err != nil || len(h.length) > 18 {
			return
		}
		clean := in
		if h.unknown {
			clean = h.withoutCodings(bytes.Clone(in))
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(clean)), nil)
		if err != nil {
			if strings.Contains(err.Error(), "bad trailer key") {
				return
			}
			t.Fatalf("%q: accepted, but net/http says %v", in, err)
		}
		if resp.StatusCode != h.status || resp.ProtoMinor != h.minor {
			t.Fatalf("%q: got status %d of 1.%d, net/http %d of 1.%d", in, h.status, h.minor, resp.StatusCode, resp.ProtoMinor)
		}
		if len(resp.TransferEncoding) > 0 && (h.hasLength || len(h.codings) != 1) {
			t.Fatalf("%q: chunked for net/http only", in)
		}
	})
}
