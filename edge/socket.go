package edge

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// connectProtocol is where the :protocol of an extended CONNECT stands in a
// request's fields; no field can have that name.
const connectProtocol = ":protocol"

// webSocketID is what RFC 6455, 1.3 joins to a key.
const webSocketID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// admitConnect judges a CONNECT. One for a WebSocket over HTTP/2 (RFC 8441) or
// HTTP/3 (RFC 9220) goes on as the GET that it is at the origin; others are
// refused.
func (x *exchange) admitConnect() bool {
	protocol := x.r.Header[connectProtocol]
	if len(protocol) == 0 || x.r.ProtoMajor < 2 {
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-target")
		return false
	}
	if len(protocol) != 1 || protocol[0] != "websocket" {
		x.fault(FaultMalformed)
		x.refuse(http.StatusNotImplemented, "connect-protocol")
		return false
	}
	if _, counted := x.r.Header["Content-Length"]; counted {
		x.fault(FaultMalformed)
		x.refuse(http.StatusBadRequest, "bad-content") // a tunnel has no length (RFC 9110, 9.3.6)
		return false
	}
	delete(x.r.Header, connectProtocol)
	x.method = http.MethodGet
	x.socket = true
	return true
}

// prepareSocket makes out the opening of a WebSocket by HTTP/1.1 (RFC 6455,
// 4.1). What the stream's content brings is sent once the origin has agreed.
func (x *exchange) prepareSocket(out *http.Request) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // it does not fail
	x.socketKey = base64.StdEncoding.EncodeToString(nonce[:])
	h := out.Header
	delete(h, "Te") // some servers upgrade only where Connection names nothing else
	delete(h, "Sec-Websocket-Accept")
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{"websocket"}
	h["Sec-Websocket-Key"] = []string{x.socketKey}
	if len(h["Sec-Websocket-Version"]) == 0 {
		h["Sec-Websocket-Version"] = []string{"13"}
	}
	x.content = &clientBody{ReadCloser: x.r.Body, rc: http.NewResponseController(x.w)}
}

// acceptOf returns the Sec-WebSocket-Accept that answers key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + webSocketID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// relaySocket answers an extended CONNECT with what the origin said to it. Only
// a 101 opens the tunnel. Any other answer is the client's to read, except one
// of success: to the client that would be a tunnel.
func (x *exchange) relaySocket(resp *http.Response) {
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols:
		defer resp.Body.Close()
		x.openSocket(resp)
	case resp.StatusCode < 300:
		resp.Body.Close()
		x.status.detail = "no-upgrade"
		x.fail(http.StatusBadGateway, "http_upgrade_failed")
	default:
		x.relay(resp, nil, "")
	}
}

// openSocket checks that the origin has agreed to this very opening (RFC 6455,
// 4.1), answers 200 with what was negotiated, and joins the two.
func (x *exchange) openSocket(resp *http.Response) {
	origin, ok := resp.Body.(io.ReadWriteCloser)
	accept := resp.Header["Sec-Websocket-Accept"]
	if !ok || len(accept) != 1 || accept[0] != acceptOf(x.socketKey) || !httpguts.HeaderValuesContainsToken(resp.Header["Upgrade"], "websocket") {
		x.status.detail = "bad-accept"
		x.fail(http.StatusBadGateway, "http_upgrade_failed")
		return
	}
	h := x.w.Header()
	maps.Copy(h, clean(resp.Header, resp.ProtoMajor, resp.ProtoMinor, time.Now()))
	for _, name := range []string{"Sec-Websocket-Accept", "Content-Length", "Trailer"} {
		delete(h, name)
	}
	h["Content-Type"] = resp.Header["Content-Type"] // nil as a rule: the library would guess one
	x.fwdKnown = resp.StatusCode
	x.head(http.StatusOK)
	if http.NewResponseController(x.w).Flush() != nil {
		x.gone()
	}
	x.joinSocket(origin)
}

// errClientLeft ends a tunnel whose client broke its stream off.
var errClientLeft = errors.New("the client broke its stream off")

// joinSocket copies between the client's stream and the origin's connection
// until the origin ends, either breaks off, or the handler closes. A client
// that ends its side only has said all, and may still hear.
func (x *exchange) joinSocket(origin io.ReadWriteCloser) {
	x.h.wait.Add(1)
	defer x.h.wait.Done()
	for _, ctx := range []context.Context{x.h.ctx, x.r.Context()} {
		stop := context.AfterFunc(ctx, func() { origin.Close() })
		defer stop()
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = copySocket(origin, x.content, nil) // an origin that takes no more may still have something to say
		half, ok := origin.(interface{ CloseWrite() error })
		if x.content.broke.Load() || !ok || half.CloseWrite() != nil {
			origin.Close()
		}
	})
	err := copySocket(x.w, origin, x)
	left := errors.Is(err, errClientLeft) || x.content.broke.Load() || x.r.Context().Err() != nil
	origin.Close()
	_ = x.content.Close() // it does not fail; ends the Read that waits
	wait.Wait()
	switch {
	case left:
		x.status.detail = "client-gone"
	case err == nil:
		return
	default:
		x.status.detail = "incomplete"
	}
	panic(http.ErrAbortHandler) // a reset, not an end: frames may be missing
}

// copySocket copies until from ends, which is no error. With x it writes to
// the client, each piece at once.
func copySocket(to io.Writer, from io.Reader, x *exchange) error {
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, err := from.Read(*buffer)
		if n > 0 && x != nil {
			if !x.write((*buffer)[:n]) || http.NewResponseController(x.w).Flush() != nil {
				return errClientLeft
			}
		} else if n > 0 {
			if _, err := to.Write((*buffer)[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
