//go:build wasip1

// Command bots is an edge function that lets robots in, keeps them out, or has
// the origin challenge them. Each line of its configuration is a rule,
//
//	ACTION CONDITION...
//
// and the first whose conditions all hold decides; a request that no rule is
// for goes on as it is. The actions are
//
//	allow          it goes on, whatever the rules below say
//	block          it is answered 403
//	challenge      it goes on with the field X-Bot-Challenge, and what the
//	               origin answers then is cached apart
//
// and the conditions
//
//	asn=64500      the client's network, by the node's GeoIP file
//	net=192.0.2.0/24   its address
//	country=FR     its country, by the node's GeoIP file
//	path=/login    how the path begins; for block and challenge also in
//	               capitals, encoded or otherwise disguised
//	ua=some text   what User-Agent has, in capitals or not; it is the last
//	               condition of a line, and without text it is no User-Agent
//
// Robots that say who they are are believed where their network is theirs:
//
//	allow asn=15169 ua=googlebot
//	block ua=googlebot
//	allow net=192.0.2.0/24 ua=our monitor
//	block asn=64500
//	block ua=
//	challenge path=/login ua=curl/
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o bots.wasm ./wasm/examples/bots
//
// Run it at the viewer's side, before functions that do more.
package main

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

const (
	challengeField = "x-bot-challenge"
	// What a request costs is bounded: by the rules, and by how much of its
	// User-Agent is looked at.
	mostRules = 1000
	seenAgent = 512
)

// rule is one line; conditions that it has not are zero.
type rule struct {
	action  string
	asn     int64
	net     netip.Prefix
	country string
	path    string
	named   bool   // User-Agent is a condition
	agent   uint32 // what it has, of texts; 0: nothing at all
}

// rules are the configuration. They are read once, when a machine starts;
// byNet, byPlace and byPath tell whether any has such a condition.
var (
	rules                  []rule
	texts                  agents // of User-Agent, in small letters
	byNet, byPlace, byPath bool
)

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool {
	if !guest.Configure(add) {
		return false
	}
	texts.link()
	return true
}

// add takes one line of the configuration.
func add(line string) error {
	action, conditions, _ := strings.Cut(line, " ")
	if !slices.Contains([]string{"allow", "block", "challenge"}, action) {
		return errors.New("the action is none of allow, block, challenge")
	}
	if len(rules) == mostRules {
		return errors.New("more than " + strconv.Itoa(mostRules) + " rules")
	}
	r := rule{action: action}
	conditions = strings.TrimSpace(conditions)
	if conditions == "" {
		return errors.New("no condition")
	}
	for conditions != "" {
		if agent, ok := strings.CutPrefix(conditions, "ua="); ok {
			if len(agent) > seenAgent {
				return errors.New("the text is longer than what is looked at, " + strconv.Itoa(seenAgent) + " bytes")
			}
			if r.named = true; agent != "" {
				r.agent = texts.add(strings.ToLower(agent))
			}
			break
		}
		var one string
		one, conditions, _ = strings.Cut(conditions, " ")
		if err := r.condition(one); err != nil {
			return err
		}
		conditions = strings.TrimSpace(conditions)
	}
	byNet = byNet || r.net.IsValid()
	byPath = byPath || r.path != ""
	byPlace = byPlace || r.asn != 0 || r.country != ""
	rules = append(rules, r)
	return nil
}

func (r *rule) condition(text string) error {
	name, value, _ := strings.Cut(text, "=")
	switch name {
	case "asn":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 {
			return errors.New("asn is no number of a network")
		}
		r.asn = int64(n)
	case "net":
		p, err := netip.ParsePrefix(value)
		if a, one := netip.ParseAddr(value); one == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return errors.New("net is neither an address nor a network as 192.0.2.0/24")
		}
		r.net = p.Masked()
	case "country":
		if len(value) != 2 {
			return errors.New("country is no code of two letters")
		}
		r.country = strings.ToUpper(value)
	case "path":
		if !strings.HasPrefix(value, "/") {
			return errors.New("path is none")
		}
		r.path = value
	default:
		return errors.New("no such condition: " + name)
	}
	return nil
}

// client is what rules look at.
type client struct {
	asn     int64
	country string
	path    guest.Paths
	silent  bool // it has no User-Agent
	address netip.Addr
}

//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	guest.Request.Remove(challengeField) // only this function says it
	var c client
	if byPath {
		path, _ := guest.Target()
		c.path = guest.Readings(path)
	}
	agent := guest.Request.Value("user-agent")
	c.silent = agent == ""
	texts.search(strings.ToLower(agent[:min(len(agent), seenAgent)]))
	if byNet {
		c.address = address()
	}
	if byPlace {
		c.asn, _ = guest.Number("seawall.geo.asn")
		c.country, _ = guest.Property("seawall.geo.country")
	}
	for i := range rules {
		if !rules[i].holds(&c) {
			continue
		}
		switch rules[i].action {
		case "block":
			return guest.Respond(403, "Robots of this kind are not welcome here.\n", "content-type", "text/plain; charset=utf-8", "cache-control", "no-store")
		case "challenge":
			guest.Request.Set(challengeField, "1")
			guest.SetProperty("seawall.cache.key", "challenge")
		}
		return guest.Continue
	}
	return guest.Continue
}

func (r *rule) holds(c *client) bool {
	return (r.asn == 0 || r.asn == c.asn) &&
		(r.country == "" || r.country == c.country) &&
		(r.path == "" || r.action == "allow" && c.path.Surely(r.path) || r.action != "allow" && c.path.Maybe(r.path)) &&
		(!r.net.IsValid() || r.net.Contains(c.address)) &&
		(!r.named || r.agent == 0 && c.silent || r.agent != 0 && texts.found(r.agent))
}

// address is the client's: by the word of trusted proxies where the node has
// such, else the connection's.
func address() netip.Addr {
	text, found := guest.Property("seawall.client.address")
	if !found {
		text, _ = guest.Property("source.address")
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone("")
	}
	p, _ := netip.ParseAddrPort(text) // an address that is none is in no network
	return p.Addr().Unmap().WithZone("")
}
