package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHitsHaveTheirLength asks over a socket: the length of small ones is left
// to net/http, which holds 2,048 bytes back.
func TestHitsHaveTheirLength(t *testing.T) {
	for i, size := range []int{0, 1, 2047, 2048, 2049, 5000, 0, 1, 2047, 2048, 2049, 5000} {
		content := strings.Repeat("x", size)
		h := codingHandler(t, rt(func(r *http.Request) (*http.Response, error) {
			return resp(r, content, "Cache-Control", "max-age=60", "Content-Type", "image/png", "Trailer", "X-None"), nil
		}), nil)
		server := httptest.NewUnstartedServer(h)
		if server.EnableHTTP2 = i >= 6; server.EnableHTTP2 {
			server.StartTLS()
		} else {
			server.Start()
		}
		for i, method := range []string{"GET", "GET", "HEAD", "GET"} {
			req, err := http.NewRequest(method, server.URL+"/a", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			want := content
			if method == "HEAD" {
				want = ""
			}
			if err != nil || res.Header.Get("Content-Length") != fmt.Sprint(size) || string(got) != want || res.Close || (res.ProtoMajor == 2) != server.EnableHTTP2 {
				t.Errorf("%d bytes, request %d (%s %s): got %d bytes, Content-Length %q, close %v, %v", size, i, method, res.Proto, len(got), res.Header.Get("Content-Length"), res.Close, err)
			}
		}
		server.Close()
	}
}
