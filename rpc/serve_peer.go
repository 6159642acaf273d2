package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

// peerService answers nodes for this node alone. Nothing that arrives here is passed
// on, so a change takes at most one step to the leader.
type peerService struct {
	armorpb.UnimplementedPeerAPIServer
	server *Server
}

// Renew answers a freshness question; a node asks for itself only.
func (p *peerService) Renew(ctx context.Context, q *armorpb.Renewal) (*armorpb.Freshness, error) {
	renewal, err := fromMessage[armor.Renewal](q)
	if err != nil {
		return nil, err
	}
	who, err := callerFrom(ctx)
	if err != nil {
		return nil, err
	}
	if who.name != string(renewal.Node) {
		return nil, fmt.Errorf("%w: node %q asks in the name of %.63q", armor.ErrDenied, who.name, renewal.Node)
	}
	answer, err := p.server.cfg.Node.Answer(ctx, renewal)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Freshness](answer), nil
}

// Poll is this node's word on who leads in a term. It is answered to any node, by a
// node that knows nothing yet, too: it is what an election is proved by.
func (p *peerService) Poll(_ context.Context, q *armorpb.BallotQuestion) (*armorpb.Ballot, error) {
	return toMessage[armorpb.Ballot](p.server.cfg.Node.Ballot(q.Term)), nil
}

// Clock tells what this node's clock shows.
func (p *peerService) Clock(context.Context, *armorpb.Empty) (*armorpb.ClockReading, error) {
	return &armorpb.ClockReading{Time: wire.TimeMessage(p.server.cfg.Node.WallClock())}, nil
}

// Attest says what this node knows of a revision.
func (p *peerService) Attest(_ context.Context, q *armorpb.AttestRequest) (*armorpb.Attestation, error) {
	a, err := p.server.cfg.Node.Attest(q.Revision)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Attestation](a), nil
}

// Cancel delivers a query cancel if the key is this node's.
func (p *peerService) Cancel(ctx context.Context, q *armorpb.CancelRequest) (*armorpb.CancelReply, error) {
	key, err := fromMessage[armor.CancelKey](q)
	if err != nil {
		return nil, err
	}
	who, err := callerFrom(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.server.cancels.admit(who.name); err != nil {
		return nil, err
	}
	return &armorpb.CancelReply{Found: p.server.cfg.Node.Cancel(ctx, key, q.Plaintext)}, nil
}

// Status is this node's word about itself.
func (p *peerService) Status(context.Context, *armorpb.Empty) (*armorpb.NodeStatus, error) {
	return toMessage[armorpb.NodeStatus](p.server.cfg.Node.Status()), nil
}

// Sessions are this node's.
func (p *peerService) Sessions(_ *armorpb.Empty, stream grpc.ServerStreamingServer[armorpb.SessionChunk]) error {
	return sendSessions(SessionSurvey{Sessions: p.server.sessionsHere(nil)}, stream.Send)
}

// Preview is which of this node's sessions a revocation would cut.
func (p *peerService) Preview(q *armorpb.PreviewRequest, stream grpc.ServerStreamingServer[armorpb.SessionChunk]) error {
	selectors, err := selectorsOf(q)
	if err != nil {
		return err
	}
	return sendSessions(SessionSurvey{Sessions: p.server.sessionsHere(selectors)}, stream.Send)
}

// Denial is what this node remembers.
func (p *peerService) Denial(_ context.Context, q *armorpb.DenialRequest) (*armorpb.DenialRecord, error) {
	record, ok := p.server.cfg.Node.Denial(q.Id)
	if !ok {
		return nil, fmt.Errorf("%w: denial %.60q", armor.ErrNotFound, q.Id)
	}
	return toMessage[armorpb.DenialRecord](record), nil
}

// Propose is the leader's half of Submit.
func (p *peerService) Propose(ctx context.Context, q *armorpb.ProposeRequest) (*armorpb.Result, error) {
	request, err := requestOf(q.Request)
	if err != nil {
		return nil, err
	}
	result, err := p.server.proposeHere(ctx, request, q.BeginOnly)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Result](result), nil
}

// Validate is the leader's half of a dry run.
func (p *peerService) Validate(_ context.Context, q *armorpb.ValidateRequest) (*armorpb.Empty, error) {
	request, err := requestOf(q.Request)
	if err != nil {
		return nil, err
	}
	if _, here, err := p.server.leader(); err != nil || !here {
		return nil, notLeader(p.server.cfg.Node)
	}
	return &armorpb.Empty{}, p.server.validateHere(request)
}

func notLeader(n Leadership) error {
	leader, _ := n.Leader()
	return &armor.NotLeaderError{Leader: leader}
}

// AwaitEnforced is the leader's word on who enforces a change.
func (p *peerService) AwaitEnforced(ctx context.Context, q *armorpb.AwaitRequest) (*armorpb.Enforcement, error) {
	result, err := fromMessage[armor.Result](q.GetResult())
	if err != nil {
		return nil, err
	}
	e, err := p.server.awaitHere(ctx, result, bounded(q.Patience))
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Enforcement](e), nil
}

// FileJoin is the leader's half of a request to join.
func (p *peerService) FileJoin(ctx context.Context, q *armorpb.JoinFiling) (*armorpb.Empty, error) {
	return &armorpb.Empty{}, p.server.fileHere(ctx, q)
}
