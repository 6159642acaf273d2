package door

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Fate is how a connection's stay at the door has ended.
type Fate int

// The fates.
const (
	Waiting Fate = iota // it has not
	Proven              // it is known who is there
	Left                // it went by itself
	Evicted             // it went for another
	Silent              // it said nothing in time
)

// Place is one connection's place at a door. All methods may be called from any
// goroutine, and again.
type Place struct {
	door    *Door
	conn    net.Conn
	number  uint64
	silence *time.Timer // nil when it may be silent; set before anybody else has the place

	// guarded by door.mu
	source netip.Addr
	lot    *lot
	fate   Fate
}

// endLocked gives the place back, unless that has been done.
func (p *Place) endLocked(f Fate) bool {
	if p.fate != Waiting {
		return false
	}
	p.fate = f
	p.lot.remove(p)
	return true
}

func (p *Place) end(f Fate) bool {
	p.Spoke()
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	return p.endLocked(f)
}

// drop closes an evicted connection; nil is nobody.
func (p *Place) drop() {
	if p != nil {
		p.Spoke()
		Drop(p.conn)
	}
}

func (p *Place) endSilent() {
	p.door.mu.Lock()
	ended := p.endLocked(Silent)
	if ended {
		p.door.refused++
	}
	p.door.mu.Unlock()
	if ended {
		Drop(p.conn)
	}
}

// Spoke says that the other side has sent something.
func (p *Place) Spoke() {
	if p.silence != nil {
		p.silence.Stop()
	}
}

// Move counts the place for the source that has become known meanwhile; another
// connection of it may be closed. It reports false when this one has been.
func (p *Place) Move(source netip.Addr) bool {
	d, source := p.door, armor.SourceOf(source)
	member := d.isMember(source)
	d.mu.Lock()
	if p.fate != Waiting {
		d.mu.Unlock()
		return false
	}
	p.lot.remove(p)
	p.source = source
	victim, ok := d.listLocked(p, member)
	if !ok {
		p.fate = Evicted
		d.refused++
	}
	d.mu.Unlock()
	victim.drop()
	return ok
}

// Proven gives the place back, as it is known who is there, and remembers the source. It
// reports false when the connection has been closed for another meanwhile.
func (p *Place) Proven() bool {
	ended := p.end(Proven)
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	if ended && p.source.IsValid() {
		p.door.known.add(p.source)
	}
	return p.fate == Proven
}

// Leave gives the place back when the connection is over.
func (p *Place) Leave() { p.end(Left) }

// Fate says how the stay has ended, if it has.
func (p *Place) Fate() Fate {
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	return p.fate
}

// Guard returns the connection with its place: the first byte that is read counts as
// spoken, and closing gives the place back.
func (p *Place) Guard() net.Conn { return &guarded{Conn: p.conn, place: p} }

type guarded struct {
	net.Conn
	place *Place
	spoke atomic.Bool
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 && !g.spoke.Load() {
		g.spoke.Store(true)
		g.place.Spoke()
	}
	return n, err
}

func (g *guarded) Close() error {
	g.place.Leave()
	return g.Conn.Close()
}

// Drop closes at once and leaves no TIME_WAIT behind: it is for connections whose orderly
// end nobody needs.
func Drop(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0) // it is closed either way
	}
	conn.Close()
}

// AddressOf returns the address at the other end; zero for a connection that has none.
func AddressOf(conn net.Conn) netip.AddrPort {
	a, ok := conn.RemoteAddr().(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Listener returns l with the door before it, for a port where nobody proves anything: a
// connection keeps its place until it is closed.
func (d *Door) Listener(l net.Listener) net.Listener { return &listener{l, d} }

type listener struct {
	net.Listener
	door *Door
}

// Accept returns the next connection that has a place.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if p := l.door.Enter(AddressOf(conn).Addr(), conn); p != nil {
			return p.Guard(), nil
		}
	}
}
