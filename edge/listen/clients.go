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
	most int // of one client; 0 is no limit

	mu   sync.Mutex
	open map[netip.Addr]int
}

// clientOf returns what addr counts as.
func clientOf(addr net.Addr) netip.Addr {
	var ip netip.Addr
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	default:
		return netip.Addr{}
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// enter counts one connection of addr; false when it has as many as it may.
func (c *clients) enter(addr net.Addr) bool {
	if c.most <= 0 {
		return true
	}
	who := clientOf(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[who] >= c.most {
		return false
	}
	c.open[who]++
	return true
}

// leave undoes an enter that returned true.
func (c *clients) leave(addr net.Addr) {
	if c.most <= 0 {
		return
	}
	who := clientOf(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[who]--; c.open[who] <= 0 {
		delete(c.open, who)
	}
}
