package cluster

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// strangers hold connections to a gossip port from four sources, a new one for each that is
// closed, and send packets of noise.
func strangers(t *testing.T, address string, each int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for source := range 4 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(source+1))}}
		for range each {
			running.Go(func() {
				for ctx.Err() == nil {
					conn, err := d.DialContext(ctx, "tcp", address)
					if err != nil {
						continue
					}
					closed := context.AfterFunc(ctx, func() { conn.Close() })
					conn.Write([]byte{244}) // a label, that never comes
					io.Copy(io.Discard, conn)
					closed()
					conn.Close()
				}
			})
		}
	}
	from := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 2, 9)}}
	noise, err := from.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		for ctx.Err() == nil {
			for range 100 {
				noise.Write([]byte("noise"))
			}
			sleep(ctx, time.Millisecond)
		}
	})
	return func() {
		cancel()
		running.Wait()
		noise.Close()
	}
}

// TestNodesMeetUnderAFloodOfStrangers at the gossip port, which holds no more of these
// than it may.
func TestNodesMeetUnderAFloodOfStrangers(t *testing.T) {
	a := gossiper(t, "a", labCluster, 1)
	defer strangers(t, a.GossipAddress(), 30)()
	soon(t, "the door is full", func() bool { return a.GossipUnproven().Evicted > 0 })
	soon(t, "packets are dropped", func() bool { return a.GossipUnproven().Refused > 0 })
	b := gossiper(t, "b", labCluster, 1, a.GossipAddress())
	soon(t, "a and b see each other", func() bool { return a.sees("a", "b") && b.sees("a", "b") })
	if c := a.GossipUnproven(); c.Open > 2*gossipStreams {
		t.Errorf("%+v", c)
	}
}

// TestStreamThatIsTooLongEnds: nobody has so much to say.
func TestStreamThatIsTooLongEnds(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := &boundedConn{Conn: near, rest: 10}
	defer c.Close()
	go far.Write(make([]byte, 20))
	if n, err := io.Copy(io.Discard, c); n != 10 || err != io.ErrUnexpectedEOF {
		t.Errorf("%d bytes, %v", n, err)
	}
}
