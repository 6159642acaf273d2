package rpc

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// Refusals asks every node for its latest refusals of an address, at most that many of each
// kind. One that does not answer within two seconds is listed with Unreachable set.
func (c *Client) Refusals(ctx context.Context, source netip.Addr, most int) ([]armor.SourceRefusals, error) {
	var nodes []armor.SourceRefusals
	q := &armorpb.RefusalsRequest{Source: source.String(), Limit: int64(most)}
	err := c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Refusals(ctx, q)
		if err == nil {
			nodes, err = fromMessages[armor.SourceRefusals](reply.Nodes)
		}
		return err
	})
	return nodes, err
}

// Refusals asks this node and every other member.
func (o *operatorService) Refusals(ctx context.Context, q *armorpb.RefusalsRequest) (*armorpb.RefusalsReply, error) {
	here, err := o.server.refusalsHere(q)
	if err != nil {
		return nil, err
	}
	all := []armor.SourceRefusals{here}
	answers := askOthers(ctx, o.server, func(ctx context.Context, node armor.NodeID) (armor.SourceRefusals, error) {
		return o.server.cfg.Peers.refusals(ctx, node, q)
	})
	for _, a := range answers {
		a.answer.Node = a.node
		a.answer.Denials = a.answer.Denials[:min(len(a.answer.Denials), armor.MaxRefusals)]
		a.answer.Unproven = a.answer.Unproven[:min(len(a.answer.Unproven), armor.MaxRefusals)]
		if a.err != nil {
			a.answer.Unreachable = why(a.err)
		}
		all = append(all, a.answer)
	}
	slices.SortFunc(all, func(a, b armor.SourceRefusals) int { return cmp.Compare(a.Node, b.Node) })
	return &armorpb.RefusalsReply{Nodes: toMessages[armorpb.SourceRefusals](all)}, nil
}

// Refusals are this node's.
func (p *peerService) Refusals(_ context.Context, q *armorpb.RefusalsRequest) (*armorpb.SourceRefusals, error) {
	here, err := p.server.refusalsHere(q)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.SourceRefusals](here), nil
}

func (s *Server) refusalsHere(q *armorpb.RefusalsRequest) (armor.SourceRefusals, error) {
	source, err := netip.ParseAddr(q.Source)
	switch {
	case err != nil:
		return armor.SourceRefusals{}, fmt.Errorf("%w: %.60q is not an IP address", armor.ErrInvalid, q.Source)
	case q.Limit < 1 || q.Limit > armor.MaxRefusals:
		return armor.SourceRefusals{}, fmt.Errorf("%w: 1 to %d refusals can be asked for", armor.ErrInvalid, armor.MaxRefusals)
	}
	here := s.cfg.Node.Refusals(source, int(q.Limit))
	here.Node = s.cfg.Node.ID()
	return here, nil
}

// refusals asks a node for its own.
func (p *Peers) refusals(ctx context.Context, node armor.NodeID, q *armorpb.RefusalsRequest) (r armor.SourceRefusals, err error) {
	err = p.read(ctx, node, func(api armorpb.PeerAPIClient) error {
		reply, err := api.Refusals(ctx, q)
		if err == nil {
			r, err = fromMessage[armor.SourceRefusals](reply)
		}
		return err
	})
	return r, err
}
