package rpc

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// verifyTimeout is how long the nodes may take to recompute what they keep.
const verifyTimeout = 2 * time.Minute

// Verify has every node recompute what it keeps of the cluster, and compares nothing: the
// marks of all are of one revision. It takes as long as the slowest node, two minutes at most.
func (c *Client) Verify(ctx context.Context) ([]armor.Verification, error) {
	var nodes []armor.Verification
	err := c.anyNode(ctx, trying{within: verifyTimeout + c.cfg.Timeout}, func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Verify(ctx, &armorpb.Empty{})
		if err == nil {
			nodes, err = fromMessages[armor.Verification](reply.Nodes)
		}
		return err
	})
	return nodes, err
}

// Verify asks this node and every other member.
func (o *operatorService) Verify(ctx context.Context, _ *armorpb.Empty) (*armorpb.VerifyReply, error) {
	reply := &armorpb.VerifyReply{}
	for _, v := range o.server.verification(ctx) {
		reply.Nodes = append(reply.Nodes, toMessage[armorpb.Verification](v))
	}
	return reply, nil
}

// verification is what every node says of the revision that this one has now, in the
// order of their ids.
func (s *Server) verification(ctx context.Context) []armor.Verification {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	state, _ := s.cfg.Node.Current()
	here := make(chan answerOf[armor.Verification], 1)
	go func() {
		v, err := s.cfg.Node.Verify(ctx, state.Revision)
		here <- answerOf[armor.Verification]{s.cfg.Node.ID(), v, err}
	}()
	answers := askEach(ctx, s, func(ctx context.Context, node armor.NodeID) (armor.Verification, error) {
		return s.cfg.Peers.verify(ctx, node, state.Revision)
	})
	var all []armor.Verification
	for _, a := range append(answers, <-here) {
		a.answer.Node = a.node
		if a.err != nil {
			a.answer = armor.Verification{Node: a.node, Unreachable: a.err.Error()}
		}
		all = append(all, a.answer)
	}
	slices.SortFunc(all, func(a, b armor.Verification) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// Verify recomputes what this node keeps.
func (p *peerService) Verify(ctx context.Context, q *armorpb.AttestRequest) (*armorpb.Verification, error) {
	v, err := p.server.cfg.Node.Verify(ctx, q.Revision)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Verification](v), nil
}

// verify has a node recompute what it keeps.
func (p *Peers) verify(ctx context.Context, node armor.NodeID, revision uint64) (v armor.Verification, err error) {
	err = p.read(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Verify(ctx, &armorpb.AttestRequest{Revision: revision})
		if err == nil {
			v, err = fromMessage[armor.Verification](reply)
		}
		return err
	})
	return v, err
}
