package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// operatorService answers operators.
type operatorService struct {
	armorpb.UnimplementedOperatorAPIServer
	server *Server
}

// Submit has a change committed, by the leader, and waits as far as is asked.
func (o *operatorService) Submit(ctx context.Context, q *armorpb.SubmitRequest) (*armorpb.SubmitReply, error) {
	wait, err := ParseWait(q.Wait)
	if err != nil {
		return nil, err
	}
	request, err := ownRequest(ctx, q.Request)
	if err != nil {
		return nil, err
	}
	result, err := o.server.propose(ctx, request, q.Request, wait == WaitNone)
	if err != nil {
		return nil, err
	}
	reply := &armorpb.SubmitReply{Result: toMessage[armorpb.Result](result)}
	if result.Err != nil || wait == WaitNone {
		return reply, nil
	}
	if wait == WaitAll {
		e := o.server.awaitEnforced(ctx, result, bounded(q.Patience))
		reply.Enforcement = toMessage[armorpb.Enforcement](e)
	}
	// What is read here afterwards contains the change. A node that lags has committed
	// it all the same.
	o.server.reached(ctx, result.Revision)
	return reply, nil
}

// ownRequest reads a request and checks that its principal is who sent it; the peer CA's comes from
// the operator whom it names.
func ownRequest(ctx context.Context, m *armorpb.Request) (armor.Request, error) {
	request, err := requestOf(m)
	if err != nil {
		return request, err
	}
	who, err := callerFrom(ctx)
	if err != nil {
		return request, err
	}
	sender := request.Principal
	if rescue, ok := request.Command.(armor.RescueOperator); ok && sender == armor.PeerCAPrincipal {
		sender = rescue.Operator.Name
	}
	if who.kind != pki.Operator || sender != who.name {
		return request, fmt.Errorf("%w: %s %q cannot submit a request of %.80q", armor.ErrDenied, who.kind, who.name, request.Principal)
	}
	return request, nil
}

// bounded reads a patience.
func bounded(nanoseconds int64) time.Duration {
	return min(max(time.Duration(nanoseconds), 0), maxPatience)
}

// Validate asks the leader whether it would accept a change.
func (o *operatorService) Validate(ctx context.Context, q *armorpb.ValidateRequest) (*armorpb.Empty, error) {
	request, err := ownRequest(ctx, q.Request)
	if err != nil {
		return nil, err
	}
	leader, here, err := o.server.leader()
	switch {
	case err != nil:
	case here:
		err = o.server.validateHere(request)
	default:
		err = o.server.cfg.Peers.validate(ctx, leader, q.Request)
	}
	return &armorpb.Empty{}, err
}

// Tables sends this node's state, or what of it answers a question.
func (o *operatorService) Tables(q *armorpb.StateRequest, stream grpc.ServerStreamingServer[armorpb.StateChunk]) error {
	asked, err := tablesNamed(q.Tables)
	if err != nil {
		return err
	}
	state, ok := o.server.reached(stream.Context(), q.AtLeast)
	if !ok {
		return fmt.Errorf("%w: node %s is at revision %d and has not reached %d yet",
			armor.ErrUnavailable, o.server.cfg.Node.ID(), state.Revision, q.AtLeast)
	}
	next := ""
	if q.About != nil {
		about, err := fromMessage[armor.Question](q.About)
		if err != nil {
			return err
		}
		if state, next, err = state.Excerpt(about); err != nil {
			return err
		}
	}
	return sendState(state, asked, next, stream.Send)
}

// Nodes asks every member.
func (o *operatorService) Nodes(ctx context.Context, _ *armorpb.Empty) (*armorpb.NodesReply, error) {
	reply := &armorpb.NodesReply{}
	for _, status := range o.server.census(ctx) {
		reply.Nodes = append(reply.Nodes, toMessage[armorpb.NodeStatus](status))
	}
	return reply, nil
}

// Sessions asks every member.
func (o *operatorService) Sessions(_ *armorpb.Empty, stream grpc.ServerStreamingServer[armorpb.SessionChunk]) error {
	return sendSessions(o.server.survey(stream.Context(), nil), stream.Send)
}

// Preview asks every member whom a revocation would cut.
func (o *operatorService) Preview(q *armorpb.PreviewRequest, stream grpc.ServerStreamingServer[armorpb.SessionChunk]) error {
	selectors, err := selectorsOf(q)
	if err != nil {
		return err
	}
	return sendSessions(o.server.survey(stream.Context(), selectors), stream.Send)
}

// selectorsOf reads selectors; there is at least one, and each means something.
func selectorsOf(q *armorpb.PreviewRequest) ([]armor.Selector, error) {
	selectors, err := fromMessages[armor.Selector](q.Selectors)
	if err != nil {
		return nil, err
	}
	if len(selectors) == 0 {
		return nil, fmt.Errorf("%w: a preview needs a selector", armor.ErrInvalid)
	}
	for _, s := range selectors {
		if err := s.Validate(); err != nil {
			return nil, err
		}
	}
	return selectors, nil
}

// Denial asks this node, then the others.
func (o *operatorService) Denial(ctx context.Context, q *armorpb.DenialRequest) (*armorpb.DenialRecord, error) {
	record, err := o.server.findDenial(ctx, q.Id)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.DenialRecord](record), nil
}

// propose has the leader propose a request: this node, or the one that it believes to
// lead. It is passed on at most once: what a node is asked as the leader it does not
// pass on. A refusal by the machine is in the result, not in the error.
func (s *Server) propose(ctx context.Context, r armor.Request, m *armorpb.Request, beginOnly bool) (armor.Result, error) {
	leader, here, err := s.leader()
	switch {
	case err != nil:
		return armor.Result{}, err
	case here:
		return s.proposeHere(ctx, r, beginOnly)
	default:
		ctx, stop := s.whileLeading(ctx, leader)
		defer stop()
		return s.cfg.Peers.propose(ctx, leader, m, beginOnly)
	}
}

// whileLeading is ctx as long as this node takes the given one for the leader: a leader that
// is cut off is not waited for once another leads.
func (s *Server) whileLeading(ctx context.Context, leader armor.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, settling) {
			if now, known := s.cfg.Node.Leader(); known && now != leader {
				cancel(&armor.NotLeaderError{Leader: now})
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled); <-done }
}

// proposeHere is the leader's half. The signature is in the request, so a node that
// passed it on is not believed: the machine judges who may do what, now and again when it
// applies the request.
func (s *Server) proposeHere(ctx context.Context, r armor.Request, beginOnly bool) (armor.Result, error) {
	if err := s.hasState(); err != nil {
		return armor.Result{}, err
	}
	if strings.HasPrefix(r.Principal, armor.NodePrincipal("")) && !s.cfg.mistakes.believeNodes {
		return armor.Result{}, fmt.Errorf("%w: what the cluster does by itself is the leader's to propose, and %s asked", armor.ErrDenied, r.Principal)
	}
	if beginOnly {
		return armor.Result{}, s.cfg.Node.Begin(ctx, r)
	}
	result, err := s.cfg.Node.Propose(ctx, r)
	if result.Revision != 0 {
		return result, nil
	}
	return result, err
}

// hasState returns errNoState for a node that knows of no cluster yet.
func (s *Server) hasState() error {
	if state, _ := s.cfg.Node.Current(); state.Cluster.ID == "" {
		return errNoState
	}
	return nil
}

func (s *Server) validateHere(r armor.Request) error {
	if err := s.hasState(); err != nil {
		return err
	}
	r.DryRun = true
	return s.cfg.Node.Validate(r)
}

// settling is how long a call waits before it asks again who leads.
const settling = 50 * time.Millisecond

// awaitEnforced asks the leader who enforces a committed change, and whoever leads
// next when it changes meanwhile. When patience ends the answer is what was known
// last.
func (s *Server) awaitEnforced(ctx context.Context, r armor.Result, patience time.Duration) armor.Enforcement {
	ends := time.Now().Add(patience)
	known := armor.Enforcement{Revision: r.Revision, Term: r.Term, CommittedAt: r.Time}
	for {
		e, err := s.askEnforced(ctx, r, time.Until(ends))
		if len(e.Nodes) > 0 {
			known = e
		}
		if err == nil {
			return known
		}
		if left := time.Until(ends); left <= 0 || !sleep(ctx, min(settling, left)) {
			return known
		}
	}
}

func (s *Server) askEnforced(ctx context.Context, r armor.Result, patience time.Duration) (armor.Enforcement, error) {
	patience = max(patience, time.Millisecond)
	leader, here, err := s.leader()
	switch {
	case err != nil:
		return armor.Enforcement{}, err
	case here:
		return s.awaitHere(ctx, r, patience)
	default:
		ctx, stop := s.whileLeading(ctx, leader)
		defer stop()
		return s.cfg.Peers.awaitEnforced(ctx, leader, r, patience)
	}
}

func (s *Server) awaitHere(ctx context.Context, r armor.Result, patience time.Duration) (armor.Enforcement, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.cfg.Node.AwaitEnforced(ctx, r)
}

// findDenial asks this node, then all others at once.
func (s *Server) findDenial(ctx context.Context, id string) (armor.DenialRecord, error) {
	if record, ok := s.cfg.Node.Denial(id); ok {
		return record, nil
	}
	answers := askOthers(ctx, s, func(ctx context.Context, node armor.NodeID) (armor.DenialRecord, error) {
		return s.cfg.Peers.denial(ctx, node, id)
	})
	silent := ""
	for _, a := range answers {
		if a.err == nil {
			return a.answer, nil
		}
		if !errors.Is(a.err, armor.ErrNotFound) {
			silent += fmt.Sprintf("; node %s did not answer", a.node)
		}
	}
	return armor.DenialRecord{}, fmt.Errorf("%w: no node remembers denial %.60q%s", armor.ErrNotFound, id, silent)
}
