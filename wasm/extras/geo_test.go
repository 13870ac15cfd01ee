package extras

import (
	"bytes"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seawall/wasm/abi"
)

// mmdb writes a database in the MaxMind format, version 2.0: a tree of 24-bit
// records over IPv6 addresses, with IPv4 ones at ::/96.
func mmdb(t testing.TB, kind string, networks map[string]any) []byte {
	t.Helper()
	type node [2]int // 0: nothing; positive: a node; negative: -1 minus a place in data
	nodes := []node{{}}
	var data []byte
	for _, prefix := range slices.Sorted(maps.Keys(networks)) {
		p := netip.MustParsePrefix(prefix)
		bits, length := p.Addr().As16(), p.Bits()
		if p.Addr().Is4() {
			bits, length = [16]byte{}, length+96
			v4 := p.Addr().As4()
			copy(bits[12:], v4[:])
		}
		at := 0
		for i := range length - 1 {
			bit := bits[i/8] >> (7 - i%8) & 1
			if nodes[at][bit] == 0 {
				nodes = append(nodes, node{})
				nodes[at][bit] = len(nodes) - 1
			}
			at = nodes[at][bit]
		}
		last := length - 1
		nodes[at][bits[last/8]>>(7-last%8)&1] = -1 - len(data)
		data = appendDB(t, data, networks[prefix])
	}
	var out []byte
	for _, n := range nodes {
		for _, record := range n {
			v := record
			switch {
			case record == 0:
				v = len(nodes)
			case record < 0:
				v = len(nodes) + 16 + (-1 - record)
			}
			out = append(out, byte(v>>16), byte(v>>8), byte(v))
		}
	}
	out = append(append(out, make([]byte, 16)...), data...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	return appendDB(t, out, map[string]any{
		"binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1700000000, "database_type": kind,
		"description": map[string]any{}, "ip_version": 6, "languages": []any{"en"}, "node_count": len(nodes), "record_size": 24,
	})
}

// appendDB appends a value as such a database has it.
func appendDB(t testing.TB, b []byte, v any) []byte {
	head := func(kind, size int) {
		if size > 29+255 || size > 28 && kind > 7 {
			t.Fatalf("a value of size %d", size)
		}
		switch {
		case kind > 7:
			b = append(b, byte(size), byte(kind-7))
		case size > 28:
			b = append(b, byte(kind<<5|29), byte(size-29))
		default:
			b = append(b, byte(kind<<5|size))
		}
	}
	switch v := v.(type) {
	case string:
		head(2, len(v))
		return append(b, v...)
	case int:
		head(6, 4)
		return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	case []any:
		head(11, len(v))
		for _, one := range v {
			b = appendDB(t, b, one)
		}
		return b
	case map[string]any:
		head(7, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b = appendDB(t, appendDB(t, b, name), v[name])
		}
		return b
	}
	t.Fatalf("no value of a database: %v", v)
	return nil
}

// city is a record as databases of cities have them.
func city(country, region, name string) map[string]any {
	return map[string]any{
		"continent": map[string]any{"code": "EU"}, "country": map[string]any{"iso_code": country, "geoname_id": 7},
		"subdivisions": []any{map[string]any{"iso_code": region}, map[string]any{"iso_code": "second"}},
		"city":         map[string]any{"names": map[string]any{"en": name, "de": name + "!"}}, "location": map[string]any{"time_zone": "Europe/Berlin", "accuracy": 5},
	}
}

func writeFile(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	cities, systems := filepath.Join(dir, "city.mmdb"), filepath.Join(dir, "asn.mmdb")
	writeFile(t, cities, mmdb(t, "City", map[string]any{
		"192.0.2.0/24": city("DE", "BE", "Berlin"), "2001:db8::/32": city("FR", "IDF", "Paris"),
		"198.51.100.0/24": map[string]any{"country": map[string]any{"iso_code": "US"}},
		"203.0.113.1/32":  map[string]any{"country": map[string]any{"iso_code": "X\r\nSet-Cookie: a"}},
		"203.0.113.2/32":  map[string]any{"country": "not a mapping"},
	}))
	writeFile(t, systems, mmdb(t, "ASN", map[string]any{
		"192.0.0.0/16": map[string]any{"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"},
	}))
	set, err := New(Options{}).Open(Config{Geo: Geo{Database: cities, ASN: systems}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	g := set.Grant("f", nil, nil)
	berlin := "country=DE\nregion=BE\ncity=Berlin\ncontinent=EU\ntime_zone=Europe/Berlin\norganization=Example Net\nasn=64500"
	for _, test := range []struct {
		args []string
		x    *abi.Exchange
		want string
	}{
		{[]string{"address", "192.0.2.9"}, nil, berlin},
		{[]string{"address", "::ffff:192.0.2.9"}, nil, berlin},
		{nil, &abi.Exchange{Facts: abi.Facts{Client: "192.0.2.9"}}, berlin},
		{[]string{"address", "2001:db8::1"}, nil, "country=FR\nregion=IDF\ncity=Paris\ncontinent=EU\ntime_zone=Europe/Berlin"},
		{[]string{"address", "2001:db8::1%eth0"}, nil, "country=FR\nregion=IDF\ncity=Paris\ncontinent=EU\ntime_zone=Europe/Berlin"},
		{[]string{"address", "198.51.100.7"}, nil, "country=US"},
		{[]string{"address", "203.0.113.1"}, nil, ""},
		{[]string{"address", "203.0.113.2"}, nil, ""},
		{[]string{"address", "10.0.0.1"}, nil, ""},
		{nil, nil, ""},
		{[]string{"address", "example.com"}, nil, "bad argument"},
		{[]string{"address", "192.0.2.9:80"}, nil, "bad argument"},
	} {
		if got := callFor(t, test.x, g, "seawall.geo", test.args...); got != test.want {
			t.Errorf("%q\ngot  %q\nwant %q", test.args, got, test.want)
		}
	}
	if got, want := set.Locate("192.0.2.9"), (abi.Geo{Country: "DE", Region: "BE", City: "Berlin", ASN: 64500}); got != want {
		t.Errorf("Locate: got %+v, want %+v", got, want)
	}
	if got := set.Locate("what"); got != (abi.Geo{}) {
		t.Errorf("Locate of no address: got %+v, want nothing", got)
	}
	none := granted(t, Config{}, Options{})
	if got := call(t, none, "seawall.geo", "address", "192.0.2.9"); got != "not found" {
		t.Errorf("without a database: got %q, want not found", got)
	}
}

func TestDatabasesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.mmdb")
	writeFile(t, text, []byte("no database"))
	for path, want := range map[string]string{
		filepath.Join(dir, "none.mmdb"): "no such file", text: "not a database", dir: "not a regular file",
	} {
		s := New(Options{})
		_, err := s.Open(Config{Geo: Geo{Database: path}, Keys: map[string]Key{"k": {Secret: []byte("sixteen bytes and")}}})
		if err == nil || !strings.Contains(err.Error(), want) || len(s.keys) != 0 {
			t.Errorf("%s: got %v and %d keys left open, want %q and none", path, err, len(s.keys), want)
		}
	}
}

func TestADatabaseIsReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "city.mmdb")
	put := func(t *testing.T, text []byte, at int) {
		t.Helper()
		writeFile(t, path, text)
		if err := os.Chtimes(path, time.Time{}, time.Unix(int64(at), 0)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) []byte {
		return mmdb(t, "City", map[string]any{"192.0.2.0/24": city("DE", "BE", name)})
	}
	synctest.Test(t, func(t *testing.T) {
		put(t, in("Berlin"), 1)
		services := New(Options{})
		set, err := services.Open(Config{Geo: Geo{Database: path, ASN: path}})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		services.Use(set)
		where := func() string { return set.Locate("192.0.2.1").City }
		expect(t, "at first", where(), "Berlin")
		put(t, in("Bonn"), 2)
		expect(t, "before anybody looks", where(), "Berlin")
		time.Sleep(geoLook + time.Second)
		expect(t, "by itself", where(), "Bonn")
		put(t, []byte("cut short"), 3)
		time.Sleep(geoLook)
		expect(t, "with a damaged file", where(), "Bonn")
		put(t, in("Kiel"), 4)
		again, err := services.Open(Config{Geo: Geo{Database: path, ASN: path}}) // a reload
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "by a reload", where(), "Kiel")
		again.Close()
		f := services.Figures().Geo["city"]
		if f.Loaded != 3 || f.Failed != 1 || f.Size == 0 || !f.Built.Equal(time.Unix(1700000000, 0)) {
			t.Errorf("figures: got %+v, want 3 loaded and 1 failed", f)
		}
	})
}

func TestADatabaseIsSwappedUnderItsReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "city.mmdb")
	one := mmdb(t, "City", map[string]any{"192.0.2.0/24": city("DE", "BE", "Berlin")})
	two := mmdb(t, "City", map[string]any{"192.0.2.0/24": city("FR", "IDF", "Paris"), "198.51.100.0/24": city("FR", "X", "Nice")})
	writeFile(t, path, one)
	set, err := New(Options{}).Open(Config{Geo: Geo{Database: path}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	var wait sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if g := set.Locate("192.0.2.1"); g.City+g.Country != "BerlinDE" && g.City+g.Country != "ParisFR" {
					t.Errorf("got %+v, want Berlin or Paris", g)
					return
				}
			}
		})
	}
	for i := range 20 {
		text := [][]byte{one, two}[i%2]
		if i%5 == 4 {
			text = bytes.Repeat([]byte{0xff}, 100+i)
		}
		// In place, as copying tools do it.
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		set.atlas.refresh()
	}
	close(stop)
	wait.Wait()
}
