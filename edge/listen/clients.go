package listen

import (
	"net"
	"net/netip"
	"sync"
)

// clients counts the connections of each client: of one IPv4 address, or of
// one IPv6 /64, which is what one subscriber has. It holds an entry only while
// the client has connections, so the connection limit bounds it.
type clients struct {
	most   int                   // of one client; 0 is no limit
	exempt func(netip.Addr) bool // nil exempts nobody

	mu   sync.Mutex
	open map[netip.Addr]int
}

// addressOf returns an address without port and zone; the zero Addr when it
// is none of the Internet.
func addressOf(addr net.Addr) netip.Addr {
	var ip netip.Addr
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	return ip.Unmap().WithZone("")
}

// clientOf returns what an address counts as.
func clientOf(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// enter counts one connection of addr; false when it has as many as it may.
// who is to be given to leave. It is the zero Addr for a connection that is not
// counted, exempt or from no address of the Internet, and stays so should exempt
// think otherwise later.
func (c *clients) enter(addr net.Addr) (who netip.Addr, ok bool) {
	if c.most <= 0 {
		return netip.Addr{}, true
	}
	ip := addressOf(addr)
	if !ip.IsValid() || c.exempt != nil && c.exempt(ip) {
		return netip.Addr{}, true
	}
	who = clientOf(ip)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[who] >= c.most {
		return netip.Addr{}, false
	}
	c.open[who]++
	return who, true
}

// crowded reports whether the client at addr has half of what it may have. A
// connection more must then show that it is that client's: a packet's sender
// can write any address, and must not use up what another one may have.
func (c *clients) crowded(addr net.Addr) bool {
	if c.most <= 0 {
		return false
	}
	who := clientOf(addressOf(addr))
	c.mu.Lock()
	defer c.mu.Unlock()
	return 2*c.open[who] >= c.most
}

// leave undoes an enter that returned true.
func (c *clients) leave(who netip.Addr) {
	if !who.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[who]--; c.open[who] <= 0 {
		delete(c.open, who)
	}
}
