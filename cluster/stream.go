package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster/link"
)

// nodeAddr is a Raft address: the node's id, which the network resolves and pins.
type nodeAddr armor.NodeID

func (nodeAddr) Network() string  { return "armor" }
func (a nodeAddr) String() string { return string(a) }

// outgoing is the stream layer of the transport that sends: it dials and never
// accepts, because what comes in is received one connection at a time (incoming).
type outgoing struct {
	network Network
	local   armor.NodeID
	once    sync.Once
	done    chan struct{}
}

func newOutgoing(network Network, local armor.NodeID) *outgoing {
	return &outgoing{network: network, local: local, done: make(chan struct{})}
}

func (o *outgoing) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout) // Raft's interface has no ctx; the timeout bounds it
	defer cancel()
	return o.network.Dial(ctx, armor.NodeID(address), link.Raft)
}

func (o *outgoing) Accept() (net.Conn, error) {
	<-o.done
	return nil, net.ErrClosed
}

func (o *outgoing) Close() error {
	o.once.Do(func() { close(o.done) })
	return nil
}

func (o *outgoing) Addr() net.Addr { return nodeAddr(o.local) }

// incoming is the stream layer of a transport that receives from one connection: it
// accepts that one and never another.
type incoming struct {
	conn    net.Conn
	local   armor.NodeID
	first   sync.Once
	gone    sync.Once
	ended   sync.Once
	done    chan struct{} // the connection is closed
	release chan struct{} // the transport is closed, and Accept may return
}

func newIncoming(conn net.Conn, local armor.NodeID) *incoming {
	return &incoming{conn: conn, local: local, done: make(chan struct{}), release: make(chan struct{})}
}

// Accept returns the connection once, and then waits until the transport is closed: an
// earlier return would be an error in its log for every connection that ends.
func (i *incoming) Accept() (conn net.Conn, err error) {
	i.first.Do(func() { conn = &watchedConn{Conn: i.conn, stream: i} })
	if conn != nil {
		return conn, nil
	}
	<-i.release
	return nil, net.ErrClosed
}

func (i *incoming) Close() error {
	err := i.hangUp()
	i.ended.Do(func() { close(i.release) })
	return err
}

// hangUp closes the connection.
func (i *incoming) hangUp() error {
	err := i.conn.Close()
	i.gone.Do(func() { close(i.done) })
	return err
}

func (i *incoming) Addr() net.Addr { return nodeAddr(i.local) }

func (i *incoming) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("%w: this stream only receives", armor.ErrUnavailable)
}

// watchedConn tells its stream when the transport has closed it.
type watchedConn struct {
	net.Conn
	stream *incoming
}

// Read reports the end of a connection that we have closed as an end, not as a fault.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (c *watchedConn) Close() error { return c.stream.hangUp() }
