package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster/link"
)

// transport is Raft's transport. It sends through an ordinary network transport. It
// receives each connection through a network transport of its own, because only then
// is it known, for every message, which node's certificate it came under: a message is
// passed on when its header names that node, and that node may speak for the cluster.
type transport struct {
	*raft.NetworkTransport // sends

	local    armor.NodeID
	network  Network
	timeout  time.Duration
	log      *slog.Logger
	clock    Clock
	consumer chan raft.RPC
	// heartbeat is Raft's way to take heartbeats past its main loop.
	heartbeat atomic.Pointer[func(raft.RPC)]
	sentry    sentry
	// reached is when each node has answered last.
	reached reminder
	// heir is to whom this node, leading, hands its office over.
	heir atomic.Pointer[heir]

	mistakes *mistakes

	once sync.Once
	done chan struct{}
}

const (
	// pooledConns is how many connections to each node are kept for reuse.
	pooledConns = 3
	// inFlight is one message to each node at a time, which turns Raft's pipelining off.
	// In raft 1.8.0 a pipeline whose follower says no can block on handing over the next
	// message, for good: that follower still gets heartbeats and never another entry,
	// and Shutdown never returns (hashicorp/raft issue 612).
	inFlight = 1
)

// sentry judges what other nodes say, and what this one may.
type sentry interface {
	// mayStand returns why this node must not stand for election; nil when it may.
	mayStand() error
	// maySpeak returns why a message of a node is not to be believed; nil: it is.
	maySpeak(ctx context.Context, node armor.NodeID, command any) error
	// mayRaise returns why a node's answer may not end a term.
	mayRaise(node armor.NodeID, from, to uint64) error
	// examine reads a snapshot that a node sends, and returns it when it may be taken.
	examine(peer armor.NodeID, m *raft.InstallSnapshotRequest, body io.Reader) (io.Reader, error)
	// snapshotSoon is called when another node did not take our snapshot because too few
	// voters knew its revision.
	snapshotSoon()
	// replicatesTo reports whether this node leads and a node is to have its log.
	replicatesTo(node armor.NodeID) bool
	// refused is told of each message that was refused.
	refused(node armor.NodeID, why error)
}

func newTransport(cfg Config, sentry sentry) *transport {
	t := &transport{
		local: cfg.Node, network: cfg.Network, timeout: cfg.Timings.Transport, log: cfg.Logger, clock: cfg.Clock,
		consumer: make(chan raft.RPC), sentry: sentry, mistakes: cfg.mistakes, done: make(chan struct{}),
	}
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newOutgoing(cfg.Network, cfg.Node), MaxPool: pooledConns, MaxRPCsInFlight: inFlight, Timeout: t.timeout,
		Logger: newLibraryLog(cfg.Logger, "raft transport"), MsgpackUseNewTimeFormat: true,
	})
	return t
}

// Consumer returns the messages of all connections.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr is this node's id.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.local) }

// EncodePeer sends addresses as they are: they are node ids.
func (t *transport) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}

// SetHeartbeatHandler takes Raft's handler of heartbeats (raft.Transport).
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) { t.heartbeat.Store(&handle) }

// Close ends both directions.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.done) })
	return t.NetworkTransport.Close()
}

// header is what this node's own Raft messages carry.
func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.local), Addr: []byte(t.local)}
}

// receive accepts connections until the transport is closed or ctx ends, and returns
// when no message of theirs is being passed on any more.
func (t *transport) receive(ctx context.Context) {
	listener := t.network.Route(link.Raft)
	var running sync.WaitGroup
	defer running.Wait()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		running.Go(func() { t.serve(ctx, conn) })
	}
}

// serve passes on the messages of one connection.
func (t *transport) serve(ctx context.Context, conn net.Conn) {
	peer, err := t.network.Peer(conn)
	if err != nil {
		t.log.Warn("refused a raft connection", armor.KeyErr, err)
		conn.Close()
		return
	}
	stream := newIncoming(conn, t.local)
	receiver := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: 1, Timeout: t.timeout,
		Logger: newLibraryLog(t.log, "raft transport"), MsgpackUseNewTimeFormat: true,
	})
	defer receiver.Close()
	receiver.SetHeartbeatHandler(func(rpc raft.RPC) { t.pass(ctx, peer, stream, rpc, true) })
	for {
		select {
		case rpc := <-receiver.Consumer():
			t.pass(ctx, peer, stream, rpc, false)
		case <-stream.done:
			return
		case <-t.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pass gives a message to Raft, or refuses it.
func (t *transport) pass(ctx context.Context, peer armor.NodeID, stream *incoming, rpc raft.RPC, heartbeat bool) {
	if err := t.judge(ctx, peer, rpc); err != nil {
		t.sentry.refused(peer, err)
		rpc.Respond(nil, err)
		if rpc.Reader != nil { // a snapshot follows on the wire, and nobody will read it
			stream.Close()
		}
		return
	}
	if m, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
		body, err := t.sentry.examine(peer, m, rpc.Reader)
		if err != nil {
			t.log.Error("refused a snapshot", armor.KeyPeer, string(peer), armor.KeyErr, err)
			rpc.Respond(nil, err)
			if errors.Is(err, errUnread) { // the rest is still on the wire
				stream.Close()
			}
			return
		}
		rpc.Reader = body
	}
	if handle := t.heartbeat.Load(); heartbeat && handle != nil {
		(*handle)(rpc)
		return
	}
	select {
	case t.consumer <- rpc:
	case <-stream.done:
	case <-t.done:
	}
}

// judge holds a message against the certificate it came under. One stolen key of a node
// must not be enough to steer the cluster: a node that does not vote cannot speak for a
// leader.
func (t *transport) judge(ctx context.Context, peer armor.NodeID, rpc raft.RPC) error {
	if t.mistakes.trustHeaders {
		return nil
	}
	with, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return fmt.Errorf("%w: a raft message without a header", armor.ErrDenied)
	}
	header := with.GetRPCHeader()
	if string(header.ID) != string(peer) || string(header.Addr) != string(peer) {
		return fmt.Errorf("%w: node %q sent a raft message in the name of %.80q", armor.ErrDenied, peer, header.ID)
	}
	for _, name := range namedSenders(rpc.Command) {
		if len(name) > 0 && string(name) != string(peer) {
			return fmt.Errorf("%w: node %q sent a raft message in the name of %.80q", armor.ErrDenied, peer, name)
		}
	}
	if err := checkEntries(rpc.Command); err != nil {
		return err
	}
	return t.sentry.maySpeak(ctx, peer, rpc.Command)
}

// checkEntries refuses entries that are not what their sender sealed: what this node
// stores gets a seal of its own, which would hide it.
func checkEntries(command any) error {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok {
		return nil
	}
	for _, entry := range m.Entries {
		err := checkSeal(entry)
		if err == nil {
			err = checkKind(entry)
		}
		if err != nil {
			return fmt.Errorf("%w: log entry %d came damaged: %w", armor.ErrInvalid, entry.Index, err)
		}
	}
	return nil
}

// checkKind refuses entries over which Raft would panic.
func checkKind(entry *raft.Log) error {
	if entry.Type > raft.LogConfiguration {
		return fmt.Errorf("it is of kind %d", entry.Type)
	}
	if entry.Type != raft.LogConfiguration {
		return nil
	}
	_, err := decodeServers(entry.Data)
	return err
}

// namedSenders are the older fields that name the sender a second time.
func namedSenders(command any) [][]byte {
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		//lint:ignore SA1019 a sender may still fill it in
		return [][]byte{m.Leader}
	case *raft.RequestVoteRequest:
		//lint:ignore SA1019 as above
		return [][]byte{m.Candidate}
	case *raft.InstallSnapshotRequest:
		return [][]byte{m.Leader}
	}
	return nil
}
