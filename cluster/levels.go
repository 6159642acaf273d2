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
// that not every member has said to this leader that it applies. A leader that is new
// gives the nodes time to ask it.
func (n *Node) understood(ctx context.Context, t *tenure, entry []byte) error {
	for {
		reported := t.lives.watch()
		err := n.applicable(t, entry)
		patience := t.began + n.cfg.Timings.Renew + n.cfg.Timings.RenewTimeout - n.cfg.Clock.Boot()
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

// applicable is understood as far as nodes have reported by now.
func (n *Node) applicable(t *tenure, entry []byte) error {
	kind, level := fsm.LevelOf(entry)
	if level <= unsaidLevel {
		return nil
	}
	var behind []string
	state, _ := n.machine.Current()
	for m := range state.Members.Values() {
		if q, _, met := t.lives.lastReport(m.ID); !met || q.Level < level {
			behind = append(behind, string(m.ID))
		}
	}
	switch len(behind) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: node %s runs an older release that cannot apply %s, or has not reported to this leader yet",
			armor.ErrConflict, behind[0], kind)
	default:
		return fmt.Errorf("%w: nodes %s run an older release that cannot apply %s, or have not reported to this leader yet",
			armor.ErrConflict, strings.Join(behind, ", "), kind)
	}
}
