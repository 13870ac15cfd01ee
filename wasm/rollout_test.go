package wasm

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"seawall/wasm/abi"
)

// versioned is a guest that marks requests and responses.
func versioned(mark string) []byte {
	g := newHW()
	at := g.call("enable_features", 2)
	g.fn("_initialize", "", "", 0, at, drop)
	request := g.call("set_header_value", 0, "x-req", mark)
	response := g.call("set_header_value", 1, "x-resp", mark)
	g.fn("handle_request", "", "I", 0, request, next)
	g.fn("handle_response", "ii", "", 0, response)
	return g.bytes()
}

func fromClient(address, cookies string) *abi.Exchange {
	x := &abi.Exchange{Facts: abi.Facts{Client: address}, Request: abi.Message{Header: http.Header{}}}
	if cookies != "" {
		x.Request.Header["Cookie"] = []string{cookies}
	}
	return x
}

// The part of clients that a candidate has is the percentage within four
// standard deviations, and grows without letting one go.
func TestRolloutShares(t *testing.T) {
	f := &Function{name: "f"}
	const clients = 40_000
	for _, by := range []string{"address", "cookie", "IPv6"} {
		had := make([]bool, clients)
		for _, percent := range []float64{0.1, 1, 5, 50, 99, 100} {
			v := versionOf(f, percent, "id")
			n := 0
			for i := range clients {
				x := fromClient(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "")
				switch by {
				case "cookie":
					x = fromClient("10.0.0.1", fmt.Sprintf("a=b; id=%d; id=x", i))
				case "IPv6":
					x = fromClient(fmt.Sprintf("2001:db8:%x:%x::%x", i>>8, i&255, i*7), "")
				}
				has := v.has(x)
				if had[i] && !has {
					t.Fatalf("by %s: client %d has the candidate at a smaller percentage and not at %v", by, i, percent)
				}
				if had[i] = has; has {
					n++
				}
			}
			share := percent / 100
			bound := 4*math.Sqrt(clients*share*(1-share)) + 1e-9
			if d := math.Abs(float64(n) - clients*share); d > bound {
				t.Errorf("by %s, %v %%: %d of %d clients, want %v within %.0f", by, percent, n, clients, clients*share, bound)
			}
		}
	}
}

func versionOf(f *Function, percent float64, cookie string) *version {
	a := Attached{Function: f, Candidate: &Function{}, Percent: percent, Cookie: cookie}
	f.refs.Store(1)
	a.Candidate.refs.Store(1)
	return &NewRollout([]Attached{a}).versions[0]
}

// Who has the candidate depends on the function's name and the client alone:
// these answers are every node's, and every later version's.
func TestRolloutIsTheSameEverywhere(t *testing.T) {
	of := func(name, cookie string, x *abi.Exchange) string {
		for percent := 1.0; percent < 100; percent++ {
			if versionOf(&Function{name: name}, percent, cookie).has(x) {
				return fmt.Sprint(percent)
			}
		}
		return "100"
	}
	for _, c := range []struct {
		name, function, cookie string
		x                      *abi.Exchange
		want                   string
	}{
		{"an address", "f", "", fromClient("192.0.2.1", ""), "99"},
		{"its mapped form", "f", "", fromClient("::ffff:192.0.2.1", ""), "99"},
		{"another function", "g", "", fromClient("192.0.2.1", ""), "80"},
		{"an IPv6 address", "f", "", fromClient("2001:db8::1", ""), "28"},
		{"another of its network", "f", "", fromClient("2001:db8::2:3:4", ""), "28"},
		{"another network", "f", "", fromClient("2001:db8:0:1::1", ""), "75"},
		{"a cookie", "f", "id", fromClient("192.0.2.1", "a=b;  id=one"), "40"},
		{"elsewhere", "f", "id", fromClient("192.0.2.2", "id=one"), "40"},
		{"without the cookie, the address", "f", "id", fromClient("192.0.2.1", "idx=one; ID=two; id="), "99"},
		{"without an address, the peer's", "f", "", &abi.Exchange{Facts: abi.Facts{Source: "192.0.2.1:77"}}, "99"},
		{"an address that is none", "f", "", fromClient("unknown", ""), "87"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := of(c.function, c.cookie, c.x); got != c.want {
				t.Errorf("first has it at %s %%, want %s %%", got, c.want)
			}
		})
	}
}

// One version sees a request and its response, the same for a client at each
// request, and a chain without the candidate has none of it.
func TestRolloutKeepsAVersionForAnExchange(t *testing.T) {
	h := newHost(t, Options{})
	one, two := load(t, h, Spec{Source: versioned("one")}), load(t, h, Spec{Source: versioned("two")})
	beside := load(t, h, Spec{Name: "g", Source: passing()})
	c := NewRollout([]Attached{{Function: beside}, {Function: one, Candidate: two, Percent: 50}})
	defer c.Close()
	counts := map[string]int{}
	ran := func(c *Chain, client string) string {
		x := fromClient(client, "")
		r := c.Begin(t.Context(), x)
		defer r.End()
		r.Request()
		x.Response = abi.Message{Status: 200, Header: http.Header{}, Source: strings.NewReader("")}
		r.Response()
		_, _ = io.Copy(io.Discard, r.ResponseBody(x.Response.Source))
		return x.Request.Header.Get("X-Req") + " " + x.Response.Header.Get("X-Resp")
	}
	for i := range 200 {
		client := fmt.Sprint("192.0.2.", i)
		got := ran(c, client)
		counts[got]++
		for range 3 {
			if again := ran(c, client); again != got {
				t.Errorf("%s: %s, and before %s", client, again, got)
			}
		}
	}
	if len(counts) != 2 || counts["one one"] == 0 || counts["two two"] == 0 {
		t.Errorf("versions at request and response: %v, want both versions, each by itself", counts)
	}
	if calls := two.Stats().Stages[abi.ViewerRequest].Calls; calls != int64(4*counts["two two"]) {
		t.Errorf("the candidate has %d calls, want %d", calls, 4*counts["two two"])
	}
	for _, percent := range []float64{0, -1, math.NaN()} {
		none := NewRollout([]Attached{{Function: one, Candidate: two, Percent: percent}})
		if got := ran(none, "192.0.2.1"); got != "one one" {
			t.Errorf("at %v %%: %s", percent, got)
		}
		none.Close()
	}
	if names := c.Functions(); !slices.Equal(names, []string{"g", "f"}) {
		t.Errorf("names: %v", names)
	}
}
