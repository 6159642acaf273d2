package armor

import "net/netip"

// SourceOf returns what counts as one source of clients: an IPv6 /64, which one host
// can use up freely, or an IPv4 address.
func SourceOf(a netip.Addr) netip.Addr {
	if !a.Is6() || a.Is4In6() {
		return a.Unmap()
	}
	return netip.PrefixFrom(a.WithZone(""), 64).Masked().Addr()
}
