// Package extras is what the node does for functions: location, cryptography,
// tokens, look-ups.
//
// Functions call it by names such as "seawall.jwt_verify", with a serialized
// map of arguments, and get a serialized map (WASM.md, 4). Keys and maps are
// the configuration's, and a function reaches those that it was granted. No
// call waits for the network or a disk.
package extras

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"seawall/wasm/abi"
)

// Options configure Services.
type Options struct {
	Log *slog.Logger // nil: none
	// Transport fetches key sets; nil: one of its own.
	Transport http.RoundTripper
}

// Config is what one configuration has for functions.
type Config struct {
	Keys map[string]Key
	Maps map[string]map[string]string
	Geo  Geo
}

// Services are what outlives configurations: key sets with what was fetched,
// and databases. They are opened for each configuration, and what two of them
// have alike is one.
type Services struct {
	log       *slog.Logger
	transport http.RoundTripper

	mu      sync.Mutex
	keys    []*namedKey // guarded by mu, as the next three
	maps    []*namedMap
	atlases []*atlas
	set     *Set // that figures are of
}

// New returns services without anything open.
func New(o Options) *Services {
	s := &Services{log: o.Log, transport: o.Transport}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.transport == nil {
		s.transport = transport()
	}
	return s
}

// namedKey is a key of a configuration.
type namedKey struct {
	name      string
	of        Key
	verifiers []verifier // of one that is not fetched
	remote    *keySet    // of one that is
	users     int        // sets; guarded by Services.mu
}

type namedMap struct {
	name   string
	values map[string]string
	users  int // sets; guarded by Services.mu
}

// Set is what one configuration has open.
type Set struct {
	services *Services
	keys     map[string]*namedKey
	maps     map[string]*namedMap
	atlas    *atlas // nil without a database
	close    sync.Once
}

// Open opens what c says, to be closed. What an open set has alike is shared
// with it: its fetched keys are there at once. On an error nothing is left
// open.
func (s *Services) Open(c Config) (*Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &Set{services: s, keys: make(map[string]*namedKey), maps: make(map[string]*namedMap)}
	for _, name := range slices.Sorted(maps.Keys(c.Keys)) {
		k, err := s.openKeyLocked(name, c.Keys[name])
		if err != nil {
			set.closeLocked()
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		set.keys[name] = k
	}
	for name, values := range c.Maps {
		set.maps[name] = s.openMapLocked(name, values)
	}
	a, err := s.openAtlasLocked(c.Geo)
	if err != nil {
		set.closeLocked()
		return nil, err
	}
	set.atlas = a
	return set, nil
}

func (s *Services) openKeyLocked(name string, c Key) (*namedKey, error) {
	for _, k := range s.keys {
		if k.name == name && reflect.DeepEqual(k.of, c) {
			k.users++
			return k, nil
		}
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	k := &namedKey{name: name, of: c, users: 1}
	if c.JWKS != nil {
		k.remote = openKeySet(name, c, s.transport, s.log)
	} else {
		k.verifiers, _ = c.fixed() // checked
	}
	s.keys = append(s.keys, k)
	return k, nil
}

func (s *Services) openMapLocked(name string, values map[string]string) *namedMap {
	for _, m := range s.maps {
		if m.name == name && maps.Equal(m.values, values) {
			m.users++
			return m
		}
	}
	m := &namedMap{name: name, values: values, users: 1}
	s.maps = append(s.maps, m)
	return m
}

// Close gives up the set's part. Grants of it go on with the keys as they are.
func (set *Set) Close() {
	set.close.Do(func() {
		set.services.mu.Lock()
		defer set.services.mu.Unlock()
		set.closeLocked()
	})
}

func (set *Set) closeLocked() {
	s := set.services
	for _, k := range set.keys {
		if k.users--; k.users == 0 && k.remote != nil {
			k.remote.close()
		}
	}
	for _, m := range set.maps {
		m.users--
	}
	s.keys = slices.DeleteFunc(s.keys, func(k *namedKey) bool { return k.users == 0 })
	s.maps = slices.DeleteFunc(s.maps, func(m *namedMap) bool { return m.users == 0 })
	s.closeAtlasLocked(set.atlas)
	if s.set == set {
		s.set = nil
	}
}

// Use makes set the one that figures are of.
func (s *Services) Use(set *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = set
}

// Grant is what one function may use.
type Grant struct {
	log   *slog.Logger
	name  string
	keys  map[string]*namedKey
	maps  map[string]*namedMap
	atlas *atlas
}

// Grant returns what the function of a name may use: these keys and maps, as
// far as the set has them.
func (set *Set) Grant(function string, keys, lists []string) *Grant {
	g := &Grant{log: set.services.log, name: function, keys: make(map[string]*namedKey), maps: make(map[string]*namedMap), atlas: set.atlas}
	for _, name := range keys {
		if k := set.keys[name]; k != nil {
			g.keys[name] = k
		}
	}
	for _, name := range lists {
		if m := set.maps[name]; m != nil {
			g.maps[name] = m
		}
	}
	return g
}

// Same reports whether two grants are of the very same things, so that a
// function need not be loaded anew.
func (g *Grant) Same(o *Grant) bool {
	return g != nil && o != nil && g.name == o.name && g.atlas == o.atlas && maps.Equal(g.keys, o.keys) && maps.Equal(g.maps, o.maps)
}

// Functions are those of the node that a function with this grant may call, by
// name. They may be called at once by any number of goroutines.
func (g *Grant) Functions() map[string]func(x *abi.Exchange, args []byte) ([]byte, error) {
	all := map[string]func(*abi.Exchange, []byte) ([]byte, error){
		"seawall.sha256":      g.hash,
		"seawall.hmac_sha256": g.mac,
		"seawall.verify":      g.verify,
		"seawall.jwt_verify":  g.jwtVerify,
		"seawall.kv_get":      g.lookUp,
		"seawall.geo":         g.locate,
		"seawall.site":        g.site,
	}
	for name, call := range all {
		all[name] = func(x *abi.Exchange, args []byte) ([]byte, error) {
			out, err := call(x, args)
			if err != nil {
				// A guest gets a number only: its writer finds the words here.
				g.log.Debug("a function's call is refused", "function", g.name, "call", name, "error", err)
			}
			return out, err
		}
	}
	return all
}

// key is the key that the arguments name. One that the function was not given
// is not found, whether it is there or not.
func (g *Grant) key(a arguments) (*namedKey, error) {
	name, err := a.must("key")
	if err != nil {
		return nil, err
	}
	k := g.keys[name]
	if k == nil {
		return nil, fmt.Errorf("%w: the function has no key %.64q (hint: its keys list in the configuration)", abi.ErrNotFound, name)
	}
	return k, nil
}

// candidates are the keys that may have signed with an algorithm: those with
// the kid, or without any; of a type that the algorithm is of, and allowed for
// it. The error is a fault.
func (k *namedKey) candidates(algorithm, kid string, hasKid bool) (set jwt.VerificationKeySet, err error) {
	if kindOf(algorithm) == "" {
		return set, faultAlgorithm
	}
	list := k.verifiers
	if k.remote != nil {
		var ok bool
		if list, ok = k.remote.now(); !ok {
			return set, faultUnavailable
		}
	}
	known := false
	for _, v := range list {
		if k.remote != nil && hasKid && v.kid != "" && v.kid != kid {
			continue
		}
		known = true
		if slices.Contains(v.algorithms, algorithm) && len(set.Keys) < maxTried {
			set.Keys = append(set.Keys, v.key)
		}
	}
	switch {
	case !known:
		k.remote.missed()
		return set, faultKey
	case len(set.Keys) == 0:
		return set, faultAlgorithm
	}
	return set, nil
}

// only is the one algorithm of a key, for callers that name none. The error may
// be a fault.
func (k *namedKey) only(kid string, hasKid bool) (string, error) {
	list := k.verifiers
	if k.remote != nil {
		var ok bool
		if list, ok = k.remote.now(); !ok {
			return "", faultUnavailable
		}
	}
	found := ""
	for _, v := range list {
		if k.remote != nil && hasKid && v.kid != "" && v.kid != kid {
			continue
		}
		for _, a := range v.algorithms {
			if found != "" && found != a {
				return "", fmt.Errorf("%w: the key has several algorithms; name one", abi.ErrArgument)
			}
			found = a
		}
	}
	if found == "" {
		k.remote.missed()
		return "", faultKey
	}
	return found, nil
}

// lookUp is seawall.kv_get.
func (g *Grant) lookUp(_ *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "map", "key")
	if err != nil {
		return nil, err
	}
	name, err1 := a.must("map")
	key, err2 := a.must("key")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	m := g.maps[name]
	if m == nil {
		return nil, fmt.Errorf("%w: the function has no map %.64q (hint: its maps list in the configuration)", abi.ErrNotFound, name)
	}
	v, ok := m.values[key]
	out := []pair{{"found", truth(ok)}}
	if ok {
		out = append(out, pair{"value", v})
	}
	return serialized(out), nil
}

// site is seawall.site.
func (g *Grant) site(x *abi.Exchange, in []byte) ([]byte, error) {
	if _, err := readArguments(in); err != nil {
		return nil, err
	}
	if x == nil {
		return nil, fmt.Errorf("%w: there is no site outside a request", abi.ErrNotFound)
	}
	out := []pair{{"name", x.Facts.Site}}
	for _, one := range x.Facts.Settings {
		out = append(out, pair{one[0], one[1]})
	}
	return serialized(out), nil
}

// Figures are counters of what is in use.
type Figures struct {
	Keys map[string]KeyFigures // of fetched sets, by name
	Geo  map[string]GeoFigures // by database: "city" or "asn"
}

// KeyFigures are of one fetched set, since it was opened.
type KeyFigures struct {
	Keys            int       // in use
	Fetched, Failed uint64    // fetches that worked, and that brought no page
	Unusable        uint64    // fetches of a page without keys that can be used
	Failing         int64     // fetches in a row without keys; 0 when the last worked
	Unknown         uint64    // tokens whose kid it does not have
	Good            time.Time // of the last fetch that worked; zero: none
}

// GeoFigures are of one database.
type GeoFigures struct {
	Built          time.Time // by its own word
	Loaded, Failed uint64    // readings of the file
	Size           int64     // bytes
}

// Figures are those of the set in use.
func (s *Services) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Figures{Keys: make(map[string]KeyFigures), Geo: make(map[string]GeoFigures)}
	if s.set == nil {
		return f
	}
	for name, k := range s.set.keys {
		if r := k.remote; r != nil {
			keys, _ := r.now()
			one := KeyFigures{Keys: len(keys), Fetched: r.fetched.Load(), Failed: r.failed.Load(), Unusable: r.unusable.Load(),
				Failing: r.faults.Load(), Unknown: r.unknown.Load()}
			if at := r.good.Load(); at != 0 {
				one.Good = time.Unix(0, at)
			}
			f.Keys[name] = one
		}
	}
	s.set.atlas.figures(f.Geo)
	return f
}

// Locate is where an address is, as far as the databases of the set say.
func (set *Set) Locate(address string) abi.Geo {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return abi.Geo{}
	}
	p := set.atlas.find(ip)
	return abi.Geo{Country: p.country, Region: p.region, City: p.city, ASN: p.asn}
}
