package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/armordb/armordb/armor"
)

// choreSpacing keeps a burst of reports from making a burst of rounds.
const choreSpacing = 20 * time.Millisecond

// housekeeper brings what the cluster is to what its state says it should be. It works
// on the leader only, one change at a time; whatever it does is a command of the
// cluster's own or a Raft configuration change, and can be repeated.
type housekeeper struct {
	node *Node
	t    *tenure
}

// chore is one part of that work. It does what is due by the state, is called in every
// round, and tries again there what has failed.
type chore func(ctx context.Context, state *armor.State)

func (h *housekeeper) chores() []chore {
	return []chore{h.servers, h.addresses, newPlanner(h).plan, h.tombstones, newPruner(h).prune, newRecorder(h).record}
}

// keepHouse does the chores until ctx ends: with each new state, with each report, and
// now and then.
func (n *Node) keepHouse(ctx context.Context, t *tenure) {
	chores := (&housekeeper{node: n, t: t}).chores()
	tick := time.NewTicker(n.cfg.Timings.Chores)
	defer tick.Stop()
	for {
		state, superseded := n.machine.Current()
		reported := t.lives.watch()
		if state.Cluster.ID != "" {
			for _, do := range chores {
				do(ctx, state)
			}
		}
		select {
		case <-superseded:
		case <-reported:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, choreSpacing) {
			return
		}
	}
}

// pace is for what is done now and then.
type pace struct{ last time.Duration } // boot clock; zero: not yet

// over reports whether it may be done again.
func (p pace) over(now, every time.Duration) bool { return p.last == 0 || now-p.last >= every }

// propose makes a change of the cluster's own.
func (h *housekeeper) propose(ctx context.Context, c armor.Command) {
	ctx, cancel := context.WithTimeout(ctx, h.node.cfg.Timings.RenewTimeout)
	defer cancel()
	_, err := h.node.Propose(ctx, h.node.own(c))
	if err != nil && !errors.Is(err, armor.ErrNotLeader) {
		h.node.cfg.Logger.Debug("housekeeping was refused", armor.KeyReason, c.Kind(), armor.KeyErr, err)
	}
}
