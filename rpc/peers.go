package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

const (
	// maxMute is how many renewals in a row may stay without any answer before their
	// connection is given up for a new one: after a partition TCP may take many
	// seconds to notice that the way is free again.
	maxMute = 2
	// forwardTimeout bounds a change that is passed on to the leader.
	forwardTimeout = 8 * time.Second
	// grace is how much longer than the leader its asker waits for it.
	grace = 2 * time.Second
)

// Peers calls other nodes. Connections are kept; a broken one is made anew by the
// call that needs it. It is safe for concurrent use.
type Peers struct {
	dialer Dialer

	mu     sync.Mutex // guards all below; never held during a call
	nodes  map[armor.NodeID]*peerLines
	closed bool
}

// peerLines are the connections to one node. Renewals have their own, so that neither
// a large answer nor a hung call delays the proof of freshness.
type peerLines struct {
	calls, renewals *line

	mu   sync.Mutex
	mute int // renewals in a row that brought no answer
}

// NewPeers makes Peers that connect by way of dialer. Close ends them.
func NewPeers(dialer Dialer) *Peers {
	return &Peers{dialer: dialer, nodes: map[armor.NodeID]*peerLines{}}
}

// Close ends all connections and the calls on them; later calls are refused.
func (p *Peers) Close() error {
	p.mu.Lock()
	nodes := p.nodes
	p.nodes, p.closed = nil, true
	p.mu.Unlock()
	for _, n := range nodes {
		n.calls.close()
		n.renewals.close()
	}
	return nil
}

func (p *Peers) lines(node armor.NodeID) (*peerLines, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("call node %s: %w", node, armor.ErrShuttingDown)
	}
	n := p.nodes[node]
	if n == nil {
		dial := func(ctx context.Context) (net.Conn, error) { return p.dialer.Dial(ctx, node, ALPN) }
		to := "node " + string(node)
		n = &peerLines{calls: newLine(to, nearConnect, handshaken{}, dial), renewals: newLine(to, nearConnect, handshaken{}, dial)}
		p.nodes[node] = n
	}
	return n, nil
}

// call makes a call at a node.
func (p *Peers) call(ctx context.Context, node armor.NodeID, do func(armorpb.PeerAPIClient) error) error {
	n, err := p.lines(node)
	if err != nil {
		return err
	}
	return n.calls.use(ctx, func(conn grpc.ClientConnInterface) error {
		return do(armorpb.NewPeerAPIClient(conn))
	})
}

// read makes a call that changes nothing, and once more when the connection broke
// under it, as it does when the peer restarts.
func (p *Peers) read(ctx context.Context, node armor.NodeID, do func(armorpb.PeerAPIClient) error) error {
	err := p.call(ctx, node, do)
	lost, ok := errors.AsType[*transportError](err)
	if ok && !lost.unsent && errors.Is(lost, armor.ErrUnavailable) {
		return p.call(ctx, node, do)
	}
	return err
}

// Renew carries a freshness question to the leader (cluster.Courier).
func (p *Peers) Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error) {
	n, err := p.lines(to)
	if err != nil {
		return armor.Freshness{}, err
	}
	var answer armor.Freshness
	err = n.renewals.use(ctx, func(conn grpc.ClientConnInterface) error {
		reply, err := armorpb.NewPeerAPIClient(conn).Renew(ctx, toMessage[armorpb.Renewal](q))
		if err == nil {
			answer, err = fromMessage[armor.Freshness](reply)
		}
		return err
	})
	if n.isMute(err) {
		n.renewals.hangUp()
	}
	return answer, err
}

// Ballot asks a node who leads in a term (cluster.Courier).
func (p *Peers) Ballot(ctx context.Context, to armor.NodeID, term uint64) (ballot armor.Ballot, err error) {
	err = p.read(ctx, to, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Poll(ctx, &armorpb.BallotQuestion{Term: term})
		if err == nil {
			ballot, err = fromMessage[armor.Ballot](reply)
		}
		return err
	})
	if lost, ok := errors.AsType[*transportError](err); ok && errors.Is(lost, armor.ErrInvalid) {
		return armor.Ballot{Term: term, Unsaid: true}, nil // gRPC's own answer to an unknown call
	}
	return ballot, err
}

// Clock asks a node what its clock shows (cluster.Courier).
func (p *Peers) Clock(ctx context.Context, to armor.NodeID) (shown time.Time, err error) {
	n, err := p.lines(to)
	if err != nil {
		return shown, err
	}
	err = n.renewals.use(ctx, func(conn grpc.ClientConnInterface) error {
		reply, err := armorpb.NewPeerAPIClient(conn).Clock(ctx, &armorpb.Empty{})
		if err == nil {
			shown, err = codec.TimeOf(reply.Time)
		}
		return err
	})
	if n.isMute(err) {
		n.renewals.hangUp()
	}
	return shown, err
}

// Attest asks a node what it knows of a revision (cluster.Courier).
func (p *Peers) Attest(ctx context.Context, to armor.NodeID, revision uint64) (a armor.Attestation, err error) {
	err = p.read(ctx, to, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Attest(ctx, &armorpb.AttestRequest{Revision: revision})
		if err == nil {
			a, err = fromMessage[armor.Attestation](reply)
		}
		return err
	})
	return a, err
}

// isMute counts renewals and questions for the time that ran into their deadline on a connection that stood.
func (n *peerLines) isMute(err error) bool {
	lost, ok := errors.AsType[*transportError](err)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !ok || lost.unsent || !errors.Is(lost, context.DeadlineExceeded) {
		n.mute = 0
		return false
	}
	n.mute++
	if n.mute < maxMute {
		return false
	}
	n.mute = 0
	return true
}

// Cancel asks a node to cancel the query that a key names, and reports whether the key
// was that node's. plaintext says that the client asked without TLS.
func (p *Peers) Cancel(ctx context.Context, to armor.NodeID, key armor.CancelKey, plaintext bool) (found bool, err error) {
	err = p.call(ctx, to, func(api armorpb.PeerAPIClient) error {
		q := toMessage[armorpb.CancelRequest](key)
		q.Plaintext = plaintext
		reply, err := api.Cancel(ctx, q)
		found = reply.GetFound()
		return err
	})
	return found, err
}

// status asks a node about itself.
func (p *Peers) status(ctx context.Context, node armor.NodeID) (status armor.NodeStatus, err error) {
	err = p.read(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Status(ctx, &armorpb.Empty{})
		if err == nil {
			status, err = fromMessage[armor.NodeStatus](reply)
		}
		return err
	})
	return status, err
}

// sessions asks a node for its sessions, or for those that selectors would cut.
func (p *Peers) sessions(ctx context.Context, node armor.NodeID, selectors []armor.Selector) (all []armor.SessionInfo, err error) {
	err = p.read(ctx, node, func(api armorpb.PeerAPIClient) error {
		var stream sessionStream
		var err error
		if selectors == nil {
			stream, err = api.Sessions(ctx, &armorpb.Empty{})
		} else {
			stream, err = api.Preview(ctx, &armorpb.PreviewRequest{Selectors: selectorMessages(selectors)})
		}
		if err != nil {
			return err
		}
		survey, err := receiveSessions(stream)
		all = survey.Sessions
		return err
	})
	return all, err
}

func selectorMessages(all []armor.Selector) []*wire.Selector {
	return toMessages[wire.Selector](all)
}

func (p *Peers) denial(ctx context.Context, node armor.NodeID, id string) (record armor.DenialRecord, err error) {
	err = p.read(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Denial(ctx, &armorpb.DenialRequest{Id: id})
		if err == nil {
			record, err = fromMessage[armor.DenialRecord](reply)
		}
		return err
	})
	return record, err
}

// propose passes a request on to the leader. What may have been carried out is
// ErrUncertain and nothing else.
func (p *Peers) propose(ctx context.Context, leader armor.NodeID, r *armorpb.Request, beginOnly bool) (result armor.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	err = p.call(ctx, leader, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Propose(ctx, &armorpb.ProposeRequest{Request: r, BeginOnly: beginOnly})
		if err == nil {
			result, err = fromMessage[armor.Result](reply)
		}
		return err
	})
	if mayHaveRun(err) {
		err = fmt.Errorf("%w: passed on to node %s: %v", armor.ErrUncertain, leader, err)
	}
	return result, err
}

func (p *Peers) validate(ctx context.Context, leader armor.NodeID, r *armorpb.Request) error {
	return p.read(ctx, leader, func(api armorpb.PeerAPIClient) error {
		_, err := api.Validate(ctx, &armorpb.ValidateRequest{Request: r})
		return err
	})
}

// awaitEnforced asks the leader, which answers with what it knows when patience ends.
func (p *Peers) awaitEnforced(
	ctx context.Context, leader armor.NodeID, r armor.Result, patience time.Duration,
) (e armor.Enforcement, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience+grace)
	defer cancel()
	q := &armorpb.AwaitRequest{Result: toMessage[armorpb.Result](r), Patience: int64(patience)}
	err = p.read(ctx, leader, func(api armorpb.PeerAPIClient) error {
		reply, err := api.AwaitEnforced(ctx, q)
		if err == nil {
			e, err = fromMessage[armor.Enforcement](reply)
		}
		return err
	})
	return e, err
}

// fileJoin hands a node's request to join to the leader.
func (p *Peers) fileJoin(ctx context.Context, leader armor.NodeID, f *armorpb.JoinFiling) error {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return p.call(ctx, leader, func(api armorpb.PeerAPIClient) error {
		_, err := api.FileJoin(ctx, f)
		return err
	})
}
