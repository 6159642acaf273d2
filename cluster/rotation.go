package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// inForce refuses to move a rotation on before every node has its present phase in force: a node
// that does not trust the new CA yet would refuse who has a certificate of it. Back, or by force, it
// may be moved at any time.
func (n *Node) inForce(t *tenure, c armor.Command) error {
	m, moves := c.(armor.MoveRotation)
	if !moves || m.Force {
		return nil
	}
	state, _ := n.machine.Current()
	r, found := state.Rotations.Get(m.Environment)
	if !found || r.Move(m.To, false) != armor.Advance {
		return nil // the machine has its say
	}
	var behind []string
	for member := range state.Members.Values() {
		if !n.hasInForce(t, member.ID, r.Revision) {
			behind = append(behind, string(member.ID))
		}
	}
	if len(behind) == 0 || n.cfg.mistakes.rotateAhead {
		return nil
	}
	return fmt.Errorf("%w: phase %s of environment %s is not in force everywhere yet: nothing says so of node %s. "+
		"Bring it back or remove it; --force goes on without it", armor.ErrConflict, r.Phase, r.Environment, strings.Join(behind, " and "))
}

// awaitInForce gives the nodes the time of a report to say so: a phase that has just begun is in
// force within milliseconds.
func (n *Node) awaitInForce(ctx context.Context, t *tenure, c armor.Command) error {
	timer := time.NewTimer(n.cfg.Timings.Renew + n.cfg.Timings.RenewTimeout)
	defer timer.Stop()
	for {
		reported := t.lives.watch()
		err := n.inForce(t, c)
		if err == nil {
			return nil
		}
		select {
		case <-reported:
		case <-timer.C:
			return err
		case <-t.ended:
			return n.notLeader()
		case <-ctx.Done():
			return err
		}
	}
}

// hasInForce reports whether a node has said just now that it has enforced a revision.
func (n *Node) hasInForce(t *tenure, node armor.NodeID, revision uint64) bool {
	if node == n.cfg.Node {
		enforced, _ := n.enforced.report()
		return enforced >= revision
	}
	q, age, ok := t.lives.lastReport(node)
	return ok && age < reportAge && !q.Ended && q.Enforced >= revision
}
