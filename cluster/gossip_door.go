package cluster

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

const (
	gossipStreams          = 64 // TCP connections at once of strangers, and as many of who is known
	gossipStreamsPerSource = 16
	// maxGossipStream bounds what one connection may send, in bytes: the names and metadata
	// of as many nodes as there may be are less.
	maxGossipStream = 1 << 20
	// strangerPackets are taken in a second from all addresses where nobody is known to be.
	strangerPackets = 200
	// gossipLines are what memberlist may log in a second: it has one for each bad packet.
	gossipLines = 10
)

// guardedTransport is memberlist's own transport behind a door: whoever does not have the
// key shall cost little. Packets of strangers, whose addresses anybody can forge, are
// bounded together; who has gossiped with us before is no stranger.
type guardedTransport struct {
	*memberlist.NetTransport
	door      *door.Door
	known     func(netip.Addr) bool
	strangers *rate.Limiter
	dropped   atomic.Uint64

	streams chan net.Conn
	packets chan *memberlist.Packet
	done    chan struct{}
	running sync.WaitGroup
}

func guard(inner *memberlist.NetTransport, known func(netip.Addr) bool) *guardedTransport {
	t := &guardedTransport{
		NetTransport: inner, known: known, strangers: rate.NewLimiter(strangerPackets, strangerPackets),
		door: door.New(door.Config{
			Unproven: gossipStreams, PerSource: gossipStreamsPerSource, Reserve: gossipStreams, FirstByte: time.Second, Member: known,
		}),
		streams: make(chan net.Conn), packets: make(chan *memberlist.Packet), done: make(chan struct{}),
	}
	t.running.Go(t.passStreams)
	t.running.Go(t.passPackets)
	return t
}

// StreamCh returns the connections that have a place.
func (t *guardedTransport) StreamCh() <-chan net.Conn { return t.streams }

// PacketCh returns the packets that are taken.
func (t *guardedTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// Shutdown ends both.
func (t *guardedTransport) Shutdown() error {
	err := t.NetTransport.Shutdown() // its listeners hand over what they have before they end
	close(t.done)
	t.running.Wait()
	return err
}

func (t *guardedTransport) passStreams() {
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			place := t.door.Enter(door.AddressOf(conn).Addr(), conn)
			if place == nil {
				continue
			}
			bounded := &boundedConn{Conn: place.Guard(), rest: maxGossipStream}
			select {
			case t.streams <- bounded:
			case <-t.done:
				bounded.Close()
			}
		case <-t.done:
			return
		}
	}
}

func (t *guardedTransport) passPackets() {
	for {
		select {
		case p := <-t.NetTransport.PacketCh():
			if !t.takes(p) {
				t.dropped.Add(1)
				continue
			}
			select {
			case t.packets <- p:
			case <-t.done:
			}
		case <-t.done:
			return
		}
	}
}

func (t *guardedTransport) takes(p *memberlist.Packet) bool {
	from, ok := p.From.(*net.UDPAddr)
	return ok && t.known(armor.SourceOf(from.AddrPort().Addr())) || t.strangers.Allow()
}

// counts are the door's; a packet that was dropped counts as refused.
func (t *guardedTransport) counts() door.Counts {
	c := t.door.Counts()
	c.Refused += t.dropped.Load()
	return c
}

// boundedConn ends when more has come than anybody has to say.
type boundedConn struct {
	net.Conn
	rest int // by the one goroutine that reads
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.rest <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(b[:min(len(b), c.rest)])
	c.rest -= n
	return n, err
}

// listen binds the port of gossip, by TCP and UDP. A port that is picked may be taken
// meanwhile for one of the two.
func (g *gossip) listen(cfg *memberlist.Config) error {
	var inner *memberlist.NetTransport
	var err error
	for range 10 {
		inner, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{cfg.BindAddr}, BindPort: cfg.BindPort, Logger: cfg.Logger,
		})
		if err == nil || cfg.BindPort != 0 || !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	if err != nil {
		return err
	}
	if cfg.BindPort == 0 {
		cfg.BindPort = inner.GetAutoBindPort()
		if cfg.AdvertisePort == 0 {
			cfg.AdvertisePort = cfg.BindPort
		}
	}
	g.transport = guard(inner, g.knows)
	cfg.Transport = g.transport
	return nil
}

// knows reports whether somebody who has the key has said that he is at a source.
func (g *gossip) knows(source netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sources[source]
}

// GossipUnproven is what the door of gossip has seen.
func (n *Node) GossipUnproven() door.Counts {
	g := n.gossip.Load()
	if g == nil {
		return door.Counts{}
	}
	return g.transport.counts()
}
