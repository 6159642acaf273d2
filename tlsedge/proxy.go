package tlsedge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

// The PROXY protocol, by which a load balancer says whom it has taken a connection
// from: a header before the client's own bytes (haproxy, "The PROXY protocol",
// versions 1 and 2). The header is read to its end and not a byte further, so that the
// connection goes on as any other.
const (
	proxyV1      = "PROXY "
	proxyV2      = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV1Most  = 107  // bytes of a whole line (§2.1)
	proxyV1Least = 15   // "PROXY UNKNOWN\r\n", the shortest
	proxyV2Head  = 16   // signature, version and command, family, length
	proxyV2Most  = 2048 // bytes behind the head; addresses are 36 of them at most, the rest is TLVs
)

// balancer reports whether an address is one that must say whom it speaks for.
func (e *Edge) balancer(a netip.Addr) bool {
	for _, p := range e.cfg.ProxyFrom {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// proxied is a client's connection that comes through a balancer.
type proxied struct {
	*net.TCPConn
	from netip.AddrPort
}

// RemoteAddr is the client's.
func (p proxied) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }

// unproxied reads the header that a balancer must send. What the balancer sends on its
// own behalf (a health check) or for somebody that it cannot name comes from the
// balancer.
func (e *Edge) unproxied(conn net.Conn, place *door.Place) (net.Conn, Outcome) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || !e.balancer(door.AddressOf(conn).Addr()) {
		return conn, ""
	}
	client, err := readProxyHeader(tcp)
	if errors.Is(err, armor.ErrInvalid) {
		if e.failures.Allow() {
			e.cfg.Logger.Warn("a load balancer's connection begins with no valid PROXY header",
				armor.KeySource, conn.RemoteAddr().String(), armor.KeyErr, err)
		}
		return nil, OutcomeProxy
	}
	if err != nil {
		return nil, failure(opening{}, err)
	}
	if !client.IsValid() {
		client = door.AddressOf(conn)
	}
	if !place.Move(client.Addr()) {
		return nil, OutcomeEvicted
	}
	return proxied{tcp, client}, ""
}

// readProxyHeader returns the client that a header names; an invalid address when it
// names nobody. It is ErrInvalid when there is no header, or a malformed one.
func readProxyHeader(r io.Reader) (client netip.AddrPort, err error) {
	head := make([]byte, proxyV1Least, proxyV1Most)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return client, err // nothing was said: a balancer looks whether we listen
	}
	if head[0] != proxyV1[0] && head[0] != proxyV2[0] {
		return client, fmt.Errorf("%w: there is none", armor.ErrInvalid)
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return client, err
	}
	switch {
	case strings.HasPrefix(string(head), proxyV1):
		return readProxyV1(r, head)
	case strings.HasPrefix(string(head), proxyV2):
		return readProxyV2(r, head)
	}
	return client, fmt.Errorf("%w: there is none", armor.ErrInvalid)
}

// readProxyV1 reads the rest of a line whose beginning is in line.
func readProxyV1(r io.Reader, line []byte) (client netip.AddrPort, err error) {
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == proxyV1Most {
			return client, fmt.Errorf("%w: a line of more than %d bytes", armor.ErrInvalid, proxyV1Most)
		}
		line = line[:len(line)+1]
		if _, err := io.ReadFull(r, line[len(line)-1:]); err != nil {
			return client, err
		}
	}
	return parseProxyV1(strings.TrimSuffix(string(line), "\r\n"))
}

// parseProxyV1 reads PROXY TCP4 source destination port port.
func parseProxyV1(line string) (client netip.AddrPort, err error) {
	malformed := fmt.Errorf("%w: malformed line %.120q", armor.ErrInvalid, line)
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" {
		return client, nil // whatever follows is to be ignored
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return client, malformed
	}
	client, err = netip.ParseAddrPort(net.JoinHostPort(words[2], words[4]))
	destination, err2 := netip.ParseAddrPort(net.JoinHostPort(words[3], words[5]))
	v4 := words[1] == "TCP4"
	if err != nil || err2 != nil || client.Addr().Is4() != v4 || destination.Addr().Is4() != v4 || client.Addr().Zone() != "" {
		return netip.AddrPort{}, malformed
	}
	return netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), nil
}

// readProxyV2 reads the rest of a header whose head was read but for its last byte.
func readProxyV2(r io.Reader, head []byte) (client netip.AddrPort, err error) {
	head = head[:proxyV2Head]
	if _, err := io.ReadFull(r, head[proxyV2Head-1:]); err != nil {
		return client, err
	}
	length := int(binary.BigEndian.Uint16(head[14:]))
	if length > proxyV2Most {
		return client, fmt.Errorf("%w: a header of %d bytes, more than %d", armor.ErrInvalid, length, proxyV2Most)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return client, err
	}
	return parseProxyV2(head[12], head[13], body)
}

// parseProxyV2 reads the addresses; what follows them (TLVs) is ignored.
func parseProxyV2(command, family byte, body []byte) (client netip.AddrPort, err error) {
	const local, proxy, unspecified, tcp4, tcp6 = 0x20, 0x21, 0x00, 0x11, 0x21
	size := map[byte]int{tcp4: 4, tcp6: 16}[family]
	switch {
	case command == local, command == proxy && family == unspecified:
		return client, nil
	case command != proxy:
		return client, fmt.Errorf("%w: version and command %#02x", armor.ErrInvalid, command)
	case size == 0:
		return client, fmt.Errorf("%w: family and protocol %#02x is not TCP", armor.ErrInvalid, family)
	case len(body) < 2*size+4:
		return client, fmt.Errorf("%w: addresses of %d bytes", armor.ErrInvalid, len(body))
	}
	source, _ := netip.AddrFromSlice(body[:size])
	return netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(body[2*size:])), nil
}
