package main

import (
	"net/http"
	"time"

	"seawall/origin"
)

// originSettings say where responses come from: a pool of servers, and how they
// are asked. A site has one, and each of its routes.
type originSettings struct {
	Origins    []serverSettings
	HostHeader string // "client", "origin" or a name
	Timeouts   origin.Timeouts
	Pool       poolSettings
	Balance    balanceSettings
	Health     healthSettings
	Retry      origin.Retry
	Breaker    origin.Breaker
	Hedge      origin.Hedge
	TLS        originTLSSettings
	Resolve    resolveSettings
}

// serverSettings are one server of a pool. Name is that of its URL without the
// scheme, unless it was given.
type serverSettings struct {
	URL, Name string
	Weight    int
	Backup    bool
	Protocol  string
}

// poolSettings bound what a pool may have under way. Those that are 0 are
// origin's own to choose, below it they are off.
type poolSettings struct {
	InFlight, Idle, PoolInFlight, Tunnels, Queue int
	QueueWait                                    time.Duration
	Hold, Head                                   int64
}

type balanceSettings struct {
	Algorithm origin.Balance
	Sticky    origin.Sticky
}

type healthSettings struct {
	origin.Health
	Passive   origin.Passive
	SlowStart time.Duration
}

type resolveSettings struct{ Every time.Duration }

// routeSettings are the paths of a site that have a pool of their own.
type routeSettings struct {
	Prefix string // without a slash at its end
	originSettings
}

// originKeys are the keys that a site and each of its routes have.
func originKeys() []key[originSettings] {
	type s = originSettings
	return []key[s]{
		{name: "origins", must: true, takes: serverList(), meaning: "the servers that have the site, asked in turn"},
		{name: "host_header", def: "client", takes: one("client, origin or a host name", parseHostHeader, func(s *s) *string { return &s.HostHeader }),
			meaning: "the Host that origins are sent"},
		{name: "balance", takes: balanceValue(), meaning: "which of the servers is asked"},
		{name: "health", takes: section(healthKeys, func(s *s) *healthSettings { return &s.Health }),
			meaning: "how it is known which servers are well"},
		{name: "timeouts", takes: section(timeoutKeys, func(s *s) *origin.Timeouts { return &s.Timeouts }),
			meaning: "how long an origin is waited for"},
		{name: "retry", takes: section(retryKeys, func(s *s) *origin.Retry { return &s.Retry }),
			meaning: "when a request is sent once more"},
		{name: "breaker", takes: sectionOrOff(breakerKeys, func(s *s) *origin.Breaker { return &s.Breaker }, true, func(b *origin.Breaker, on bool) {
			if !on {
				*b = origin.Breaker{Share: -1}
			}
		}), meaning: "when a server that fails is left alone for a while"},
		{name: "hedge", takes: sectionOrOff(hedgeKeys, func(s *s) *origin.Hedge { return &s.Hedge }, false, func(h *origin.Hedge, on bool) { h.On = on }),
			meaning: "whether a second server is asked when the first is slow"},
		{name: "pool", takes: section(poolKeys, func(s *s) *poolSettings { return &s.Pool }),
			meaning: "connections to the origins, and requests at once"},
		{name: "origin_tls", takes: section(originTLSKeys, func(s *s) *originTLSSettings { return &s.TLS }),
			meaning: "whom https origins must be, and what they are shown"},
		{name: "resolve", takes: section(resolveKeys, func(s *s) *resolveSettings { return &s.Resolve }),
			meaning: "how origins' names are looked up"},
	}
}

func serverKeys() []key[serverSettings] {
	type s = serverSettings
	return []key[s]{
		{name: "url", must: true, takes: one(originKind, parseOrigin, func(s *s) *string { return &s.URL }),
			meaning: "where it is; srv+http://NAME asks DNS for the SRV records of NAME"},
		{name: "name", takes: one("a name of letters, digits, dots and dashes", parseName, func(s *s) *string { return &s.Name }),
			meaning: "what metrics, log lines and the API call it; without it, host and port"},
		{name: "weight", def: "1", takes: one("a number from 1 to 1000", numbers(1, 1000), func(s *s) *int { return &s.Weight }),
			meaning: "its share beside the others'"},
		{name: "backup", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.Backup }),
			meaning: "ask it only while no other is well"},
		{name: "protocol", def: "h1", takes: one("h1, h2, h2c, h3 or auto", words("h1", "h2", "h2c", "h3", "auto"), func(s *s) *string { return &s.Protocol }),
			meaning: "HTTP/1.1, HTTP/2 over TLS or in clear, HTTP/3, or what the server chooses over TLS of the first two"},
	}
}

func algorithms() []string {
	return []string{string(origin.RoundRobin), string(origin.LeastConnections), string(origin.LeastTime), string(origin.ClientHash), string(origin.KeyHash)}
}

const algorithmKind = "round_robin, least_connections, least_time, client_hash or key_hash"

func balanceKeys() []key[balanceSettings] {
	return []key[balanceSettings]{
		{name: "algorithm", def: string(origin.RoundRobin), takes: one(algorithmKind, parseBalance, func(s *balanceSettings) *origin.Balance { return &s.Algorithm }),
			meaning: "how a server is chosen"},
		{name: "sticky", takes: section(stickyKeys, func(s *balanceSettings) *origin.Sticky { return &s.Sticky }),
			meaning: "keep a client at one server for what is its own; without it, no"},
	}
}

func parseBalance(s string) (origin.Balance, error) {
	word, err := words(algorithms()...)(s)
	return origin.Balance(word), err
}

func stickyKeys() []key[origin.Sticky] {
	return []key[origin.Sticky]{
		{name: "cookie", must: true, takes: one("a cookie's name", parseField, func(s *origin.Sticky) *string { return &s.Cookie }),
			meaning: "the name of the cookie"},
		{name: "max_age", takes: one("a duration from 1s to 8760h, as 24h", spans(time.Second, 8760*time.Hour), func(s *origin.Sticky) *time.Duration { return &s.MaxAge }),
			meaning: "how long it holds; without it, until the client ends its session"},
		{name: "secure", def: "false", takes: one("true or false", parseBool, func(s *origin.Sticky) *bool { return &s.Secure }),
			meaning: "let clients send it by TLS alone"},
	}
}

func healthKeys() []key[healthSettings] {
	type s = healthSettings
	return []key[s]{
		{name: "path", takes: one("a path, as /healthz", parseCheckPath, func(s *s) *string { return &s.Path }),
			meaning: "what each server is asked; without it and tcp, none is"},
		{name: "tcp", def: "false", takes: one("true or false", parseBool, func(s *s) *bool { return &s.TCP }),
			meaning: "only connect, in place of path"},
		{name: "method", def: http.MethodGet, takes: one("GET, HEAD or OPTIONS", words(http.MethodGet, http.MethodHead, http.MethodOptions), func(s *s) *string { return &s.Method }),
			meaning: "the method it is asked by"},
		{name: "host", takes: one("a host name", parseCheckHost, func(s *s) *string { return &s.Host }),
			meaning: "the Host it is sent; without it, host_header if that is a name, else the server's own"},
		{name: "status", takes: many("a status from 200 to 599", numbers(200, 599), func(s *s) *[]int { return &s.Status }),
			meaning: "the answers of one that is well; without it, 200 to 399"},
		{name: "body", takes: one("text of 1 to 1024 bytes", parseCheckBody, func(s *s) *string { return &s.Body }),
			meaning: "what the first 64KiB of the answer must have"},
		{name: "interval", def: "5s", takes: one("a duration from 100ms to 1h, as 5s", spans(100*time.Millisecond, time.Hour), func(s *s) *time.Duration { return &s.Interval }),
			meaning: "from one check of a server to the next, give or take a tenth"},
		{name: "timeout", def: "2s", takes: one("a duration from 10ms to 1m, as 2s", spans(10*time.Millisecond, time.Minute), func(s *s) *time.Duration { return &s.Timeout }),
			meaning: "how long a check may take"},
		{name: "rise", def: "2", takes: one("a number from 1 to 100", numbers(1, 100), func(s *s) *int { return &s.Rise }),
			meaning: "good checks in a row that bring a server back"},
		{name: "fall", def: "3", takes: one("a number from 1 to 100", numbers(1, 100), func(s *s) *int { return &s.Fall }),
			meaning: "bad ones in a row that take it out"},
		{name: "passive", takes: section(passiveKeys, func(s *s) *origin.Passive { return &s.Passive }),
			meaning: "when a server is taken out for what it answers clients"},
		{name: "slow_start", def: "10s", takes: one("a duration from 1ms to 1h, as 10s, or off", spansOr("off", time.Millisecond, time.Hour), func(s *s) *time.Duration { return &s.SlowStart }),
			meaning: "how long until one that returns has its whole share"},
	}
}

func passiveKeys() []key[origin.Passive] {
	type s = origin.Passive
	return []key[s]{
		{name: "failures", def: "5", takes: one("a number from 1 to 1000, or off", wordOr("off", -1, numbers(1, 1000)), func(s *s) *int { return &s.Failures }),
			meaning: "in a row, that take it out"},
		{name: "latency", def: "4", takes: one("a number from 1.5 to 100, or off", wordOr("off", -1, reals(1.5, 100)), func(s *s) *float64 { return &s.Latency }),
			meaning: "times the median of the others, that take it out"},
		{name: "slow", def: "500ms", takes: one("a duration from 1ms to 1m, as 500ms", spans(time.Millisecond, time.Minute), func(s *s) *time.Duration { return &s.Slow }),
			meaning: "a latency below it is no reason"},
		{name: "eject", def: "10s", takes: one("a duration from 100ms to 1h, as 10s", spans(100*time.Millisecond, time.Hour), func(s *s) *time.Duration { return &s.Eject }),
			meaning: "how long it is out, times how often it was of late"},
		{name: "max_eject", def: "5m", takes: one("a duration from 100ms to 24h, as 5m", spans(100*time.Millisecond, 24*time.Hour), func(s *s) *time.Duration { return &s.MaxEject }),
			meaning: "the longest of that"},
		{name: "max_share", def: "0.5", takes: one("a number from 0.01 to 1", reals(0.01, 1), func(s *s) *float64 { return &s.MaxShare }),
			meaning: "the part of the servers that may be out; of several, one may"},
	}
}

func timeoutKeys() []key[origin.Timeouts] {
	type s = origin.Timeouts
	span := func(field func(*s) *time.Duration) value[s] {
		return one("a duration from 1ms to 24h, as 5s, or off", spansOr("off", time.Millisecond, 24*time.Hour), field)
	}
	return []key[s]{
		{name: "connect", def: "5s", takes: span(func(s *s) *time.Duration { return &s.Connect }), meaning: "name lookup and TCP"},
		{name: "tls", def: "5s", takes: span(func(s *s) *time.Duration { return &s.TLS }), meaning: "the TLS handshake"},
		{name: "header", def: "30s", takes: span(func(s *s) *time.Duration { return &s.Header }), meaning: "from the request's end to the response's head"},
		{name: "idle_body", def: "30s", takes: span(func(s *s) *time.Duration { return &s.IdleBody }), meaning: "without a byte of the response's body"},
		{name: "idle_write", def: "30s", takes: span(func(s *s) *time.Duration { return &s.WriteIdle }), meaning: "without a byte of the request taken"},
		{name: "idle_request", def: "30s", takes: span(func(s *s) *time.Duration { return &s.RequestIdle }), meaning: "without a byte of the client's content, before there is an answer"},
		{name: "total", def: "off", takes: span(func(s *s) *time.Duration { return &s.Total }), meaning: "the whole exchange, body included"},
		{name: "idle_conn", def: "4s", takes: span(func(s *s) *time.Duration { return &s.IdleConn }), meaning: "how long an unused connection is kept"},
		{name: "expect", def: "1s", takes: span(func(s *s) *time.Duration { return &s.ExpectContinue }), meaning: "how long a 100 is waited for"},
		{name: "settle", def: "5ms", takes: span(func(s *s) *time.Duration { return &s.Settle }), meaning: "how long a connection rests before its next request"},
	}
}

func retryKeys() []key[origin.Retry] {
	type s = origin.Retry
	return []key[s]{
		{name: "attempts", def: "auto", takes: one("a number from 1 to 10, or auto", wordOr("auto", 0, numbers(1, 10)), func(s *s) *int { return &s.Attempts }),
			meaning: "in all, the first included; auto is 3, but no more than there are servers"},
		{name: "share", def: "0.2", takes: one("a number from 0 to 1; 0 is no share", noneAtZero(parseFraction), func(s *s) *float64 { return &s.Share }),
			meaning: "retries and hedges in a second, of its requests"},
		{name: "floor", def: "10", takes: one("a number from 0 to 10000", noneAtZero(numbers(0, 10_000)), func(s *s) *int { return &s.Floor }),
			meaning: "so many in a second are allowed however few the requests"},
		{name: "backoff", def: "25ms", takes: one("a duration from 1ms to 10s, as 25ms, or off", spansOr("off", time.Millisecond, 10*time.Second), func(s *s) *time.Duration { return &s.Backoff }),
			meaning: "the most that the first retry waits, doubled with each"},
		{name: "max_backoff", def: "1s", takes: one("a duration from 1ms to 1m, as 1s", spans(time.Millisecond, time.Minute), func(s *s) *time.Duration { return &s.MaxBackoff }),
			meaning: "the longest of that"},
		{name: "within", def: "10s", takes: one("a duration from 1ms to 1h, as 10s, or off", spansOr("off", time.Millisecond, time.Hour), func(s *s) *time.Duration { return &s.Within }),
			meaning: "no retry begins later after the request"},
		{name: "on", takes: many("429 or a status from 500 to 599", parseRetryStatus, func(s *s) *[]int { return &s.On }),
			meaning: "statuses after which GET and HEAD are repeated; without it, none"},
		{name: "max_retry_after", def: "2s", takes: one("a duration from 1s to 1m, as 2s", spans(time.Second, time.Minute), func(s *s) *time.Duration { return &s.MaxRetryAfter }),
			meaning: "the longest Retry-After that is waited for; longer ones are passed on"},
	}
}

func breakerKeys() []key[origin.Breaker] {
	type s = origin.Breaker
	return []key[s]{
		{name: "share", def: "0.5", takes: one("a number from 0.01 to 1", reals(0.01, 1), func(s *s) *float64 { return &s.Share }),
			meaning: "of failures in the window, from which it opens"},
		{name: "least", def: "20", takes: one("a number from 1 to 1000000", numbers(1, 1_000_000), func(s *s) *int { return &s.Least }),
			meaning: "requests in the window without which it stays closed"},
		{name: "window", def: "10s", takes: one("a duration from 100ms to 10m, as 10s", spans(100*time.Millisecond, 10*time.Minute), func(s *s) *time.Duration { return &s.Window }),
			meaning: "how far back it looks"},
		{name: "open", def: "2s", takes: one("a duration from 10ms to 10m, as 2s", spans(10*time.Millisecond, 10*time.Minute), func(s *s) *time.Duration { return &s.Open }),
			meaning: "how long until the server is tried again"},
		{name: "probes", def: "1", takes: one("a number from 1 to 1000", numbers(1, 1000), func(s *s) *int { return &s.Probes }),
			meaning: "requests at once while it is tried"},
		{name: "success", def: "3", takes: one("a number from 1 to 1000", numbers(1, 1000), func(s *s) *int { return &s.Success }),
			meaning: "good answers in a row that close it"},
	}
}

func hedgeKeys() []key[origin.Hedge] {
	return []key[origin.Hedge]{
		{name: "delay", def: "auto", takes: one("a duration from 1ms to 1m, as 50ms, or auto", wordOr("auto", 0, spans(time.Millisecond, time.Minute)), func(s *origin.Hedge) *time.Duration { return &s.Delay }),
			meaning: "how long the first is given; auto is what 95 of 100 recent answers took"},
		{name: "least", def: "10ms", takes: one("a duration from 1ms to 1m, as 10ms", spans(time.Millisecond, time.Minute), func(s *origin.Hedge) *time.Duration { return &s.Least }),
			meaning: "the shortest such time"},
	}
}

func poolKeys() []key[poolSettings] {
	type s = poolSettings
	count := func(least int) func(string) (int, error) { return numbers(least, 1<<16) }
	return []key[s]{
		{name: "max_in_flight", def: "1024", takes: one("a number from 1 to 65536", count(1), func(s *s) *int { return &s.InFlight }),
			meaning: "requests at once to each origin"},
		{name: "max_idle", def: "64", takes: one("a number from 0 to 65536", count(0), func(s *s) *int { return &s.Idle }),
			meaning: "unused connections kept to each origin"},
		{name: "max_pool_in_flight", def: "all", takes: one("a number from 1 to 65536, or all", wordOr("all", 0, count(1)), func(s *s) *int { return &s.PoolInFlight }),
			meaning: "requests at once to all of them; all is what they take together"},
		{name: "max_tunnels", def: "1024", takes: one("a number from 1 to 65536", count(1), func(s *s) *int { return &s.Tunnels }),
			meaning: "WebSockets and other upgrades at once to each origin"},
		{name: "queue", def: "auto", takes: one("a number from 1 to 65536, or auto", wordOr("auto", 0, count(1)), func(s *s) *int { return &s.Queue }),
			meaning: "requests that may wait for a place; auto is an eighth of the places"},
		{name: "queue_wait", def: "1s", takes: one("a duration from 1ms to 1m, as 1s", spans(time.Millisecond, time.Minute), func(s *s) *time.Duration { return &s.QueueWait }),
			meaning: "how long they do; then they get what is stored, or 503"},
		{name: "hold", def: "64KiB", takes: one("a size from 1B to 1MiB, or off", wordOr("off", -1, sizes(1, mib)), func(s *s) *int64 { return &s.Hold }),
			meaning: "answers to GET up to this size are held back until they are whole, so that another server can be asked"},
		{name: "max_head", def: "256KiB", takes: one("a size from 4KiB to 1MiB", sizes(4*kib, mib), func(s *s) *int64 { return &s.Head }),
			meaning: "the longest head of a response"},
	}
}

func resolveKeys() []key[resolveSettings] {
	return []key[resolveSettings]{
		{name: "every", def: "30s", takes: one("a duration from 1s to 24h, as 30s", spans(time.Second, 24*time.Hour), func(s *resolveSettings) *time.Duration { return &s.Every }),
			meaning: "how long an answer holds that says nothing of its own lifetime"},
	}
}

func routeKeys() []key[routeSettings] {
	prefix := key[routeSettings]{name: "prefix", must: true, takes: one("a path, as /api", parsePrefixPath, func(s *routeSettings) *string { return &s.Prefix }),
		meaning: "the paths that have it, by whole segments"}
	return append([]key[routeSettings]{prefix}, lift(originKeys(), func(s *routeSettings) *originSettings { return &s.originSettings })...)
}
