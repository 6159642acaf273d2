// Package memnet is a network in memory, for tests: hosts, connections, and links
// between them that can be cut, slowed or broken.
//
// It knows no protocol. It waits only on channels and timers, so a whole cluster runs
// on it inside a testing/synctest bubble, in that bubble's time.
//
// Invariant: bytes arrive in order and unchanged, or not at all. A cut link is a black
// hole, as when packets are dropped: nothing arrives, nobody is told, and what was
// written arrives after the link has healed.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// Network connects hosts. All methods may be called from any goroutine.
type Network struct {
	mu      sync.Mutex // guards all below
	hosts   map[armor.NodeID]*Host
	cut     map[way]bool
	delay   map[way]time.Duration
	changed chan struct{} // closed and replaced when a link changes
	conns   map[*Conn]struct{}
}

// way is one direction of a link.
type way struct{ from, to armor.NodeID }

// New returns a network without hosts.
func New() *Network {
	return &Network{
		hosts: map[armor.NodeID]*Host{}, cut: map[way]bool{}, delay: map[way]time.Duration{},
		changed: make(chan struct{}), conns: map[*Conn]struct{}{},
	}
}

// Host returns the host of a node, making it when there is none. A host that was
// closed is replaced.
func (n *Network) Host(id armor.NodeID) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[id]
	if h == nil {
		h = &Host{net: n, id: id, routes: map[string]*listener{}}
		n.hosts[id] = h
	}
	return h
}

// Crash takes a host off the network: its connections break at once.
func (n *Network) Crash(id armor.NodeID) {
	n.mu.Lock()
	h := n.hosts[id]
	delete(n.hosts, id)
	n.mu.Unlock()
	if h != nil {
		h.close()
	}
	n.reset(func(w way) bool { return w.from == id || w.to == id })
}

// Cut lets nothing pass from one host to another; the other direction is not touched.
func (n *Network) Cut(from, to armor.NodeID) { n.set(func() { n.cut[way{from, to}] = true }) }

// Sever cuts both directions between two hosts.
func (n *Network) Sever(a, b armor.NodeID) {
	n.Cut(a, b)
	n.Cut(b, a)
}

// Isolate severs a host from all others.
func (n *Network) Isolate(id armor.NodeID) {
	for _, other := range n.others(id) {
		n.Sever(id, other)
	}
}

// Heal mends every link.
func (n *Network) Heal() { n.set(func() { n.cut = map[way]bool{} }) }

// Delay makes everything from one host to another take d.
func (n *Network) Delay(from, to armor.NodeID, d time.Duration) {
	n.set(func() { n.delay[way{from, to}] = d })
}

// Drop breaks the connections between two hosts, as a router that lost its state does:
// what was on its way is lost.
func (n *Network) Drop(a, b armor.NodeID) {
	n.reset(func(w way) bool { return w == way{a, b} || w == way{b, a} })
}

// Pass waits as long as a message from one host takes to reach another: for ever over
// a cut link. It is for messages that tests carry by calling a function.
func (n *Network) Pass(ctx context.Context, from, to armor.NodeID) error {
	for {
		cut, delay, changed := n.link(way{from, to})
		if !cut {
			return wait(ctx, delay)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: nothing passes from %s to %s", armor.ErrUnavailable, from, to)
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) link(w way) (cut bool, delay time.Duration, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[w], n.delay[w], n.changed
}

func (n *Network) others(id armor.NodeID) []armor.NodeID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []armor.NodeID
	for other := range n.hosts {
		if other != id {
			all = append(all, other)
		}
	}
	return all
}

func (n *Network) reset(chosen func(way) bool) {
	n.mu.Lock()
	var broken []*Conn
	for c := range n.conns {
		if chosen(c.out.way) {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.reset()
	}
}

// Host is one node's place on the network. It fits cluster.Network.
type Host struct {
	net *Network
	id  armor.NodeID

	mu     sync.Mutex // guards all below
	routes map[string]*listener
}

// Route returns the listener of one protocol.
func (h *Host) Route(protocol string) net.Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.routes[protocol]
	if l == nil {
		l = &listener{host: h.id, conns: make(chan net.Conn, 64), done: make(chan struct{})}
		h.routes[protocol] = l
	}
	return l
}

// Dial connects to a host once a message could go there and back; over a cut link it
// waits until ctx ends.
func (h *Host) Dial(ctx context.Context, to armor.NodeID, protocol string) (net.Conn, error) {
	if err := h.net.Pass(ctx, h.id, to); err != nil {
		return nil, err
	}
	if err := h.net.Pass(ctx, to, h.id); err != nil {
		return nil, err
	}
	h.net.mu.Lock()
	there := h.net.hosts[to]
	h.net.mu.Unlock()
	if there == nil {
		return nil, fmt.Errorf("%w: connection to %s refused", armor.ErrUnavailable, to)
	}
	near, far := h.net.connect(h.id, to)
	if err := there.Route(protocol).(*listener).deliver(far); err != nil {
		near.Close()
		return nil, err
	}
	return near, nil
}

// Peer returns the node that dialed.
func (h *Host) Peer(c net.Conn) (armor.NodeID, error) {
	conn, ok := c.(*Conn)
	if !ok {
		return "", errors.New("not a connection of this network")
	}
	return conn.Claim(), nil
}

func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.routes {
		l.Close()
	}
}

type listener struct {
	host  armor.NodeID
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) deliver(c net.Conn) error {
	select {
	case <-l.done:
		return fmt.Errorf("%w: connection to %s refused", armor.ErrUnavailable, l.host)
	default:
	}
	select {
	case l.conns <- c:
		return nil
	default:
		return fmt.Errorf("%w: %s accepts nothing", armor.ErrUnavailable, l.host)
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		for {
			select {
			case c := <-l.conns:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return Addr(l.host) }

// Addr is a host's address: its name.
type Addr armor.NodeID

// Network is the network's name.
func (Addr) Network() string { return "memnet" }

// String is the host's name.
func (a Addr) String() string { return string(a) }
