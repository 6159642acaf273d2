package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc/armorpb"
)

// callerFrom returns who called: what the connection's certificate proved.
func callerFrom(ctx context.Context) (caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, fmt.Errorf("%w: a call without a connection", armor.ErrDenied)
	}
	who, ok := p.AuthInfo.(caller)
	if !ok || who.kind == "" {
		return caller{}, fmt.Errorf("%w: this call needs a certificate of the cluster", armor.ErrDenied)
	}
	return who, nil
}

// authorize says whether the caller may make the call at all: operators theirs, nodes
// theirs. A service that is not listed is for nobody.
func (s *Server) authorize(ctx context.Context, method string) error {
	who, err := callerFrom(ctx)
	if err != nil {
		return err
	}
	service, call, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if !slices.Contains(openToNodes, call) {
		s.awaitKnowledge(ctx)
	}
	switch {
	case service == armorpb.OperatorAPI_ServiceDesc.ServiceName && who.kind == pki.Operator:
		return s.authorizeOperator(who, call)
	case service == armorpb.PeerAPI_ServiceDesc.ServiceName && who.kind == pki.Node:
		return s.authorizeNode(who, call)
	}
	return fmt.Errorf("%w: %s %q may not call %s", armor.ErrDenied, who.kind, who.name, method)
}

func (s *Server) awaitKnowledge(ctx context.Context) {
	if s.cfg.Known == nil {
		return
	}
	select {
	case <-s.cfg.Known:
	case <-ctx.Done():
	}
}

// authorizeOperator lets every operator of the state read, and node admins act on nodes. Changes are judged where
// they are proposed, by the leader and by the signature, since this node may not have
// heard yet of a new operator.
func (s *Server) authorizeOperator(who caller, call string) error {
	if call == "Submit" || call == "Validate" {
		return nil
	}
	state, _ := s.cfg.Node.Current()
	operator, ok := state.Operators.Get(who.name)
	switch {
	case state.Cluster.ID == "":
		return errNoState
	case !ok:
		return fmt.Errorf("%w: there is no operator %q", armor.ErrDenied, who.name)
	case operator.Certificate.Key != who.key:
		return fmt.Errorf("%w: operator %q has another certificate now", armor.ErrDenied, who.name)
	case len(operator.Roles) == 0:
		return fmt.Errorf("%w: operator %q has no role", armor.ErrDenied, who.name)
	case (call == "Order" || call == "Drain") && !operator.Has(armor.NodeAdmin):
		return fmt.Errorf("%w: operator %s lacks role %s, which acting on nodes and their pools needs",
			armor.ErrDenied, operator.Name, armor.NodeAdmin)
	}
	return nil
}

// openToNodes are the calls that every node may make, because what this node knows of
// the caller does not matter to the answer: Renew is the leader's to answer, also to a removed
// node or to one that this node has not heard of yet, and a ballot, the time and a digest are no
// secrets. A cluster that starts as a whole needs the answers to begin.
var openToNodes = []string{"Renew", "Poll", "Clock", "Attest"}

// authorizeNode lets members ask, which is who holds a member's key. What is open to every
// node is open to nobody in the name of somebody else.
func (s *Server) authorizeNode(who caller, call string) error {
	state, _ := s.cfg.Node.Current()
	member, known := state.Members.Get(who.name)
	tombstone, removed := state.Tombstones.Get(who.name)
	switch {
	case known && member.Certificate.Key != who.key:
		return fmt.Errorf("%w: node %q is a member with another key", armor.ErrDenied, who.name)
	case removed && !known && !tombstone.FormerKey.IsZero() && tombstone.FormerKey != who.key:
		return fmt.Errorf("%w: node %q was removed, and had another key", armor.ErrDenied, who.name)
	case known, slices.Contains(openToNodes, call):
		return nil
	case state.Cluster.ID == "":
		return errNoState
	}
	return fmt.Errorf("%w: node %q is not a member", armor.ErrDenied, who.name)
}

// errNoState is the answer of a node that has just started: it knows nobody yet, which
// is no reason to deny anybody.
var errNoState = fmt.Errorf("%w: this node has no state yet", armor.ErrUnavailable)
