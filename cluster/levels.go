package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// unsaidLevel is the level of the log that a node applies which does not name one:
// releases do since the one that came after that level.
const unsaidLevel = 3

// understood refuses an entry at which some member would have to stop: one of a level
// later than all that was applied, and that not every member has said to this leader
// that it applies. A leader that is new gives the nodes time to ask it, and so does any
// to a node that it has never met: the node may have been admitted just now.
func (n *Node) understood(ctx context.Context, t *tenure, entry []byte, c armor.Command) error {
	asked := n.cfg.Clock.Boot()
	for {
		reported := t.lives.watch()
		patience := t.began + n.cfg.Timings.Renew + n.cfg.Timings.RenewTimeout - n.cfg.Clock.Boot()
		strangers, err := n.applicable(t, entry, c, patience <= 0)
		if strangers {
			patience += asked - t.began
		}
		if err == nil || patience <= 0 {
			return err
		}
		timer := time.NewTimer(patience)
		select {
		case <-reported:
		case <-timer.C:
		case <-t.ended:
			timer.Stop()
			return n.notLeader()
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		timer.Stop()
	}
}

// applicable is understood as far as nodes have reported by now, and strangers that some never
// have; late says that they have had the time. A removal waits for no node that does not report, since it is for nodes
// that are gone: one of an older release that comes back stops at it, and says so.
func (n *Node) applicable(t *tenure, entry []byte, c armor.Command, late bool) (strangers bool, err error) {
	kind, level := fsm.LevelOf(entry)
	if level <= max(unsaidLevel, n.machine.Level()) {
		return false, nil
	}
	var behind []string
	state, _ := n.machine.Current()
	leaving, isRemoval := removedBy(c)
	for m := range state.Members.Values() {
		q, _, met := t.lives.lastReport(m.ID)
		if isRemoval && (m.ID == leaving || late && !met) {
			continue
		}
		if !met || q.Level < level {
			behind, strangers = append(behind, string(m.ID)), strangers || !met
		}
	}
	switch len(behind) {
	case 0:
		return false, nil
	case 1:
		return strangers, fmt.Errorf("%w: node %s runs an older release that cannot apply this %s, or has not reported to this leader yet: "+
			"upgrade it, start it, or remove it", armor.ErrConflict, behind[0], kind)
	default:
		return strangers, fmt.Errorf("%w: nodes %s run an older release that cannot apply this %s, or have not reported to this leader yet: "+
			"upgrade them, start them, or remove them", armor.ErrConflict, strings.Join(behind, ", "), kind)
	}
}

// removedBy returns the node that a command removes, if it removes one.
func removedBy(c armor.Command) (armor.NodeID, bool) {
	switch c := c.(type) {
	case armor.RemoveMember:
		return c.Node, true
	case armor.ReplaceMember:
		return c.Node, true
	}
	return "", false
}
