//go:build wasip1

// Command geo is an edge function that goes by where clients are: it tells the
// origin their country and language, sends them to the pages made for them,
// and keeps countries out. The node finds the country in its GeoIP file. Each
// line of its configuration is one of
//
//	languages: en de fr          what the site speaks; the first where no other fits
//	key: country language        cache responses apart by these; for an origin whose
//	                             responses do not name the fields in Vary
//	block: 451 KP SY             clients there are answered 451, or 403
//	redirect: AT,CH,DE /de/*     clients there are sent (302) to a path or URL; "/*" at
//	                             its end stands for the path that they asked for
//	stay: NAME                   clients with this cookie are not redirected
//	country-header: NAME         (X-Country)
//	language-header: NAME        (X-Language)
//
// For example:
//
//	languages: en de
//	block: 451 KP
//	redirect: AT,CH,DE https://de.example.com/*
//	stay: country_chosen
//
// A client whose country is not known is neither redirected nor kept out, and
// the origin gets no X-Country. Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o geo.wasm ./wasm/examples/geo
//
// Run it at the viewer's side.
package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"seawall/wasm/examples/guest"
)

// The configuration. It is read once, when a machine starts.
var (
	languages      []string
	byCountry      bool // part of the key
	byLanguage     bool
	blocked        = map[string]int{}    // countries, with the status
	redirects      = map[string]string{} // countries, with the target
	stay           string
	countryHeader  = "x-country"
	languageHeader = "x-language"
)

// main is not run: the node calls what is exported.
func main() {}

//go:wasmexport proxy_on_configure
func configure(_, _ uint32) bool {
	if !guest.Configure(rule) {
		return false
	}
	if byLanguage && len(languages) == 0 {
		return guest.Refuse("key: language needs languages")
	}
	return true
}

// rule takes one line of the configuration.
func rule(line string) error {
	name, value, ok := strings.Cut(line, ":")
	words := strings.Fields(value)
	if !ok || len(words) == 0 {
		return errors.New("not NAME: VALUE")
	}
	switch name {
	case "languages":
		for _, w := range words {
			languages = append(languages, strings.ToLower(w))
		}
	case "key":
		byCountry, byLanguage = slices.Contains(words, "country"), slices.Contains(words, "language")
		if len(words) > 2 || slices.ContainsFunc(words, func(w string) bool { return w != "country" && w != "language" }) {
			return errors.New("neither country nor language")
		}
	case "block":
		return block(words)
	case "redirect":
		return redirect(words)
	case "stay":
		stay = words[0]
	case "country-header":
		countryHeader = strings.ToLower(words[0])
	case "language-header":
		languageHeader = strings.ToLower(words[0])
	default:
		return errors.New("no such setting")
	}
	return nil
}

func block(words []string) error {
	if words[0] != "451" && words[0] != "403" || len(words) < 2 {
		return errors.New("not block: 451 COUNTRY... or 403")
	}
	status, _ := strconv.Atoi(words[0]) // one of the two
	for _, c := range words[1:] {
		if !code(c) {
			return errors.New("a country is a code of two capitals")
		}
		blocked[c] = status
	}
	return nil
}

func redirect(words []string) error {
	if len(words) != 2 {
		return errors.New("not redirect: COUNTRY,COUNTRY TARGET")
	}
	to := words[1]
	if !strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "https://") && !strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "/*") {
		return errors.New("the target is neither a path nor an http or https URL")
	}
	for c := range strings.SplitSeq(words[0], ",") {
		if !code(c) {
			return errors.New("a country is a code of two capitals")
		}
		redirects[c] = to
	}
	return nil
}

func code(s string) bool {
	return len(s) == 2 && 'A' <= s[0] && s[0] <= 'Z' && 'A' <= s[1] && s[1] <= 'Z'
}

//go:wasmexport proxy_on_request_headers
func request(_, _, _ uint32) uint32 {
	country, _ := guest.Property("seawall.geo.country")
	if status, ok := blocked[country]; ok {
		return guest.Respond(status, "This is not available in your country.\n", "content-type", "text/plain; charset=utf-8", "cache-control", "no-store")
	}
	if to := target(country); to != "" {
		return guest.Respond(302, "", "location", to, "cache-control", "no-store")
	}
	// Only this function says them.
	tell(countryHeader, country)
	language := ""
	if len(languages) > 0 {
		language = preferred(guest.Request.Value("accept-language"))
	}
	tell(languageHeader, language)
	key := ""
	if byCountry {
		key = "country=" + country
	}
	if byLanguage {
		key += " language=" + language
	}
	if key != "" {
		guest.SetProperty("seawall.cache.key", key)
	}
	return guest.Continue
}

func tell(field, value string) {
	if value == "" {
		guest.Request.Remove(field)
		return
	}
	guest.Request.Set(field, value)
}

// target is where clients of a country are sent, "" if they are to stay. They
// do where they have been sent already.
func target(country string) string {
	to, ok := redirects[country]
	if !ok {
		return ""
	}
	if stay != "" {
		if _, chosen := guest.Cookie(stay); chosen {
			return ""
		}
	}
	path, query := guest.Target()
	here := path
	if !strings.HasPrefix(to, "/") {
		here = guest.Request.Value(":scheme") + "://" + guest.Request.Value(":authority") + path
	}
	base, all := strings.CutSuffix(to, "/*")
	if !all {
		if here == to {
			return ""
		}
		return to
	}
	if strings.HasPrefix(here, base+"/") || here == base {
		return ""
	}
	return base + path + query
}

// seenLanguages bounds what is looked at of Accept-Language.
const seenLanguages = 512

// preferred is the language of the site that the client likes best (RFC 9110,
// 12.5.4): by weight, then by the client's order.
func preferred(accept string) string {
	best, weight := languages[0], 0
	for one := range strings.SplitSeq(strings.ToLower(accept[:min(len(accept), seenLanguages)]), ",") {
		tag, parameter, _ := strings.Cut(one, ";")
		w := thousandths(strings.TrimSpace(parameter))
		if w <= weight {
			continue
		}
		if l := spoken(strings.TrimSpace(tag)); l != "" {
			best, weight = l, w
		}
	}
	return best
}

// spoken is the site's language for a tag: the same, or the one before its
// first hyphen.
func spoken(tag string) string {
	if slices.Contains(languages, tag) {
		return tag
	}
	tag, _, _ = strings.Cut(tag, "-")
	if slices.Contains(languages, tag) {
		return tag
	}
	return ""
}

// thousandths reads q=0.5; nothing is 1000, and what cannot be read is 0.
func thousandths(q string) int {
	if q == "" {
		return 1000
	}
	value, ok := strings.CutPrefix(q, "q=")
	whole, rest, _ := strings.Cut(value, ".")
	if !ok || len(rest) > 3 || whole != "0" && whole != "1" {
		return 0
	}
	n, err := strconv.ParseUint((rest + "000")[:3], 10, 16)
	if err != nil || whole == "1" && n > 0 {
		return 0
	}
	if whole == "1" {
		return 1000
	}
	return int(n)
}
