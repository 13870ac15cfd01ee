package exampletest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"seawall/wasm"
	"seawall/wasm/abi"
)

// Function is a loaded function.
type Function struct {
	chain *wasm.Chain
	log   *lines
}

// Run sends a request through the function at the viewer's side, then the
// response, unless the function answered.
//
// A request is "METHOD URL" and lines of fields, and of facts: "@country FR",
// "@asn 64500", "@client 192.0.2.7". A response is its status and lines of
// fields; "" is a bare 200. The result has the lines
//
//	> METHOD URL         if either changed
//	> -Name: value       of the request, lost
//	> +Name: value       and won
//	key TEXT             the part of the key that was set
//	< 200                if the status changed
//	< -Name: value       of the response, lost
//	< +Name: value       and won
//	answer 403           it answered instead, with these fields and content
//	Name: value
//	| text
//	failed WHY
func (f *Function) Run(request, response string) string {
	x := exchange(request)
	was := x.Request
	was.Header = was.Header.Clone()
	run := f.chain.Begin(context.Background(), x)
	defer run.End()
	var out []string
	switch result := run.Request(); result.Verdict {
	case wasm.Failed:
		return "failed " + result.Reason
	case wasm.Answered:
		return answer(run, x)
	}
	out = append(changes("> ", line(&was), line(&x.Request), was.Header, x.Request.Header), out...)
	if x.Cache.Key != "" {
		out = append(out, "key "+x.Cache.Key)
	}
	x.Response = reply(response)
	code, header := x.Response.Status, x.Response.Header.Clone()
	switch result := run.Response(); result.Verdict {
	case wasm.Failed:
		return "failed " + result.Reason
	case wasm.Answered:
		return answer(run, x)
	}
	out = append(out, changes("< ", strconv.Itoa(code), strconv.Itoa(x.Response.Status), header, x.Response.Header)...)
	return strings.Join(out, "\n")
}

func line(m *abi.Message) string {
	return m.Method + " " + m.Scheme + "://" + m.Authority + m.Target
}

// exchange reads a request; a test's text has no mistakes.
func exchange(text string) *abi.Exchange {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	method, address, _ := strings.Cut(first, " ")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		panic(fmt.Sprintf("exampletest: request %q: %v", first, err))
	}
	scheme, after, _ := strings.Cut(address, "://")
	target := strings.TrimPrefix(after, u.Host)
	x := &abi.Exchange{
		Request: abi.Message{Method: method, Scheme: scheme, Authority: u.Host, Target: target, Header: http.Header{}},
		Facts: abi.Facts{ID: "test", Begun: time.Now(), Site: "test", Protocol: "HTTP/1.1", Source: "192.0.2.1:40000", Destination: "192.0.2.2:443",
			Client: "192.0.2.1"},
		Cache: abi.Cache{TTL: -1},
	}
	for l := range strings.Lines(rest) {
		l = strings.TrimRight(l, "\r\n")
		if fact, ok := strings.CutPrefix(l, "@"); ok {
			learn(&x.Facts, fact)
			continue
		}
		name, value, _ := strings.Cut(l, ":")
		x.Request.Header.Add(name, strings.TrimSpace(value))
	}
	return x
}

func learn(f *abi.Facts, fact string) {
	name, value, _ := strings.Cut(fact, " ")
	switch name {
	case "country":
		f.Geo.Country = value
	case "region":
		f.Geo.Region = value
	case "asn":
		n, _ := strconv.ParseUint(value, 10, 32) // a test's text
		f.Geo.ASN = uint32(n)
	case "client":
		f.Client, f.Source = value, value+":40000"
		if strings.Contains(value, ":") {
			f.Source = "[" + value + "]:40000"
		}
	default:
		panic("exampletest: fact " + fact)
	}
}

// reply reads a response.
func reply(text string) abi.Message {
	m := abi.Message{Status: 200, Header: http.Header{}, Source: strings.NewReader("content")}
	for i, l := range strings.Split(strings.TrimSpace(text), "\n") {
		name, value, field := strings.Cut(strings.TrimRight(l, "\r"), ":")
		if field {
			m.Header.Add(name, strings.TrimSpace(value))
		} else if n, err := strconv.Atoi(l); i == 0 && err == nil {
			m.Status = n
		}
	}
	return m
}

// changes are the start, if it changed, and the field lines lost and won.
func changes(mark, startWas, start string, was, is http.Header) []string {
	var out []string
	if startWas != start {
		out = append(out, mark+start)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		for _, v := range was[name] {
			if !slices.Contains(is[name], v) {
				out = append(out, mark+"-"+name+": "+v)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		for _, v := range is[name] {
			if !slices.Contains(was[name], v) {
				out = append(out, mark+"+"+name+": "+v)
			}
		}
	}
	return out
}

// answer is what the function answered; its length is the content's.
func answer(run *wasm.Run, x *abi.Exchange) string {
	if result := run.Response(); result.Verdict == wasm.Failed {
		return "failed " + result.Reason
	}
	m := &x.Response
	content, err := io.ReadAll(run.ResponseBody(m.Source))
	if err != nil {
		return "failed " + err.Error()
	}
	out := []string{"answer " + strconv.Itoa(m.Status)}
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		if name == "Content-Length" {
			continue
		}
		for _, v := range m.Header[name] {
			out = append(out, name+": "+v)
		}
	}
	for l := range strings.Lines(string(content)) {
		out = append(out, "| "+strings.TrimRight(l, "\n"))
	}
	return strings.Join(out, "\n")
}
