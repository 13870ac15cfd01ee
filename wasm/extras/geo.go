package extras

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"seawall/wasm/abi"
)

// Geo names databases of where addresses are, in the MaxMind format.
type Geo struct {
	// Database has countries, and maybe regions and cities; ASN autonomous
	// systems. They may be the same file. "" is none.
	Database, ASN string
}

// Bounds of databases.
const (
	maxDatabase = 1 << 30 // bytes
	geoLook     = 30 * time.Second
	maxPlace    = 256 // bytes of a name
)

// place is what the databases say of an address.
type place struct {
	country, region, city, continent, zone, organization string
	asn                                                  uint32
}

// atlas is the databases of a configuration. A goroutine looks whether the
// files have changed, from openAtlas to close.
type atlas struct {
	of         Geo
	log        *slog.Logger
	city, asn  *database // either may be nil; one when the files are
	users      int       // guarded by Services.mu
	stop       context.CancelFunc
	done       chan struct{}
	refreshing sync.Mutex
}

// database is a file that is read whole into memory. A mapped one would have
// to be unmapped after its last reader, and a file cut short in place, as
// copying tools do, would end the process with a bus error; what is in memory
// is the collector's to drop.
type database struct {
	path string
	now  atomic.Pointer[edition]

	loaded, failed atomic.Uint64
	seen           stamp // of the file last looked at, good or bad; under refreshing
}

// edition is one state of the file.
type edition struct {
	reader *maxminddb.Reader
	size   int64
}

// stamp tells states of a file apart.
type stamp struct {
	at   time.Time
	size int64
}

func (s *Services) openAtlasLocked(of Geo) (*atlas, error) {
	if of == (Geo{}) {
		return nil, nil
	}
	for _, a := range s.atlases {
		if a.of == of {
			a.refresh()
			a.users++
			return a, nil
		}
	}
	a := &atlas{of: of, log: s.log, done: make(chan struct{}), users: 1}
	var err error
	if a.city, err = openDatabase(of.Database); err != nil {
		return nil, err
	}
	if a.asn = a.city; of.ASN != of.Database {
		if a.asn, err = openDatabase(of.ASN); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	go a.watch(ctx)
	s.atlases = append(s.atlases, a)
	return a, nil
}

func (s *Services) closeAtlasLocked(a *atlas) {
	if a == nil {
		return
	}
	if a.users--; a.users > 0 {
		return
	}
	a.stop()
	<-a.done
	s.atlases = slices.DeleteFunc(s.atlases, func(o *atlas) bool { return o == a })
}

func (a *atlas) watch(ctx context.Context) {
	defer close(a.done)
	tick := time.NewTicker(geoLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.refresh()
		}
	}
}

// refresh reads files that have changed. One that cannot be read leaves the
// last state in use.
func (a *atlas) refresh() {
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	for _, d := range a.databases() {
		changed, err := d.load()
		switch {
		case err != nil:
			a.log.Warn("a database of addresses cannot be read anew: the last state stays in use", "error", err)
		case changed:
			a.log.Info("a database of addresses was read anew", "path", d.path, "built", d.now.Load().reader.Metadata.BuildTime().UTC())
		}
	}
}

func (a *atlas) databases() (all []*database) {
	if a.city != nil {
		all = append(all, a.city)
	}
	if a.asn != nil && a.asn != a.city {
		all = append(all, a.asn)
	}
	return all
}

func openDatabase(path string) (*database, error) {
	if path == "" {
		return nil, nil
	}
	d := &database{path: path}
	if _, err := d.load(); err != nil {
		return nil, err
	}
	return d, nil
}

// load reads the file, if it is not the one that was looked at last.
func (d *database) load() (changed bool, err error) {
	info, err := os.Stat(d.path)
	if err != nil {
		return false, fmt.Errorf("geo: %w", err)
	}
	is := stamp{info.ModTime(), info.Size()}
	if is == d.seen {
		return false, nil
	}
	d.seen = is
	one, err := readEdition(d.path, info)
	if err != nil {
		d.failed.Add(1)
		return false, fmt.Errorf("geo: %s: %w", d.path, err)
	}
	d.loaded.Add(1)
	d.now.Store(one)
	return true, nil
}

func readEdition(path string, info os.FileInfo) (*edition, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file; give a database in the MaxMind format")
	}
	if info.Size() > maxDatabase {
		return nil, fmt.Errorf("larger than %d bytes, and it is kept in memory", maxDatabase)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text := make([]byte, info.Size())
	if _, err := io.ReadFull(file, text); err != nil {
		return nil, fmt.Errorf("it changed while it was read: %w", err)
	}
	reader, err := maxminddb.OpenBytes(text)
	if err != nil {
		return nil, fmt.Errorf("not a database in the MaxMind format: %w", err)
	}
	return &edition{reader, info.Size()}, nil
}

// record is what is read of a database's entry.
type record struct {
	Continent struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"continent"`
	Country struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Regions []struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"subdivisions"`
	City struct {
		Names struct {
			English string `maxminddb:"en"`
		} `maxminddb:"names"`
	} `maxminddb:"city"`
	Location struct {
		Zone string `maxminddb:"time_zone"`
	} `maxminddb:"location"`
	ASN          uint32 `maxminddb:"autonomous_system_number"`
	Organization string `maxminddb:"autonomous_system_organization"`
}

// find is what is known of an address; of none, nothing. IPv4 addresses in
// IPv6 ones are looked up as what they are.
func (a *atlas) find(ip netip.Addr) (p place) {
	if a == nil {
		return p
	}
	ip = ip.Unmap().WithZone("")
	for _, d := range a.databases() {
		var r record
		// A damaged entry is one that is not there.
		if err := d.now.Load().reader.Lookup(ip).Decode(&r); err != nil {
			continue
		}
		if d == a.city {
			p.country, p.city, p.continent, p.zone = short(r.Country.Code), short(r.City.Names.English), short(r.Continent.Code), short(r.Location.Zone)
			if len(r.Regions) > 0 {
				p.region = short(r.Regions[0].Code)
			}
		}
		if d == a.asn {
			p.asn, p.organization = r.ASN, short(r.Organization)
		}
	}
	return p
}

// short is a text of a database, unless it is one that no header could carry.
func short(s string) string {
	if len(s) > maxPlace || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ""
	}
	return strings.Clone(s) // not the whole database with it
}

// locate is seawall.geo.
func (g *Grant) locate(x *abi.Exchange, in []byte) ([]byte, error) {
	a, err := readArguments(in, "address")
	if err != nil {
		return nil, err
	}
	if g.atlas == nil {
		return nil, fmt.Errorf("%w: there is no database of addresses (hint: geo.database in the configuration)", abi.ErrNotFound)
	}
	text, given := a.one("address")
	if !given && x != nil {
		text = x.Facts.Client
	}
	ip, err := netip.ParseAddr(text)
	if err != nil && given {
		return nil, fmt.Errorf("%w: address is an IP address", abi.ErrArgument)
	}
	if err != nil {
		return serialized(nil), nil
	}
	p := g.atlas.find(ip)
	var out []pair
	for _, one := range []pair{
		{"country", p.country}, {"region", p.region}, {"city", p.city}, {"continent", p.continent}, {"time_zone", p.zone}, {"organization", p.organization},
		{"asn", strings.TrimPrefix(strconv.FormatUint(uint64(p.asn), 10), "0")},
	} {
		if one.value != "" {
			out = append(out, one)
		}
	}
	return serialized(out), nil
}

func (a *atlas) figures(into map[string]GeoFigures) {
	if a == nil {
		return
	}
	for name, d := range map[string]*database{"city": a.city, "asn": a.asn} {
		if d == nil {
			continue
		}
		now := d.now.Load()
		into[name] = GeoFigures{Built: now.reader.Metadata.BuildTime(), Loaded: d.loaded.Load(), Failed: d.failed.Load(), Size: now.size}
	}
}
