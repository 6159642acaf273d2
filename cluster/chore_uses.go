package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// usesLevel is the level of the log that records uses. A cluster is brought to it by an operator's
// rotation and not by its leader, which would shut out the release before.
const usesLevel = 9

// usesWitness asks the doorkeeper now and then, since a renewal is made more often than a use is news.
type usesWitness struct {
	mu    sync.Mutex // guards asked
	asked pace
}

func (w *usesWitness) uses(n *Node) []armor.Use {
	if n.cfg.Doorkeeper == nil || n.machine.Level() < usesLevel {
		return nil
	}
	if !w.due(n.cfg.Clock.Boot(), n.cfg.Timings.Uses) {
		return nil
	}
	state, _ := n.machine.Current()
	return n.cfg.Doorkeeper.Uses(state)
}

func (w *usesWitness) due(now, every time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asked.over(now, every) {
		return false
	}
	w.asked.last = now
	return true
}

// checkUses refuses what no doorkeeper says.
func checkUses(q armor.Renewal) error {
	if len(q.Uses) > armor.MaxUsesAtOnce {
		return fmt.Errorf("%w: the renewal of node %q brings %d uses, more than %d", armor.ErrInvalid, q.Node, len(q.Uses), armor.MaxUsesAtOnce)
	}
	for _, u := range q.Uses {
		if _, err := armor.ParseIdentity(string(u.Identity)); err != nil {
			return fmt.Errorf("renewal of node %q: %w", q.Node, err)
		}
	}
	return nil
}

// usesHeard are the uses that nodes have reported and that no entry has recorded yet.
type usesHeard struct {
	mu  sync.Mutex
	all map[string]armor.Use // by Use.Key; at most armor.MaxUses
}

func newUsesHeard() *usesHeard { return &usesHeard{all: map[string]armor.Use{}} }

func (h *usesHeard) hear(uses []armor.Use) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range uses {
		known, had := h.all[u.Key()]
		if had && known.Seen.After(u.Seen) || !had && len(h.all) >= armor.MaxUses {
			continue
		}
		h.all[u.Key()] = u
	}
}

// take returns the uses that a state wants to know of, as many as one entry may bring, those
// of the longest ago first; others are forgotten.
func (h *usesHeard) take(s *armor.State) []armor.Use {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.all, func(_ string, u armor.Use) bool { return !s.WantsUse(u) })
	wanted := slices.SortedFunc(maps.Values(h.all), func(a, b armor.Use) int {
		return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Key(), b.Key()))
	})
	return wanted[:min(len(wanted), armor.MaxUsesAtOnce)]
}

// recorder records uses, at most one entry for each time that nodes are asked.
type recorder struct {
	*housekeeper
	pace
}

func newRecorder(h *housekeeper) *recorder { return &recorder{housekeeper: h} }

func (r *recorder) record(ctx context.Context, state *armor.State) {
	now := r.node.cfg.Clock.Boot()
	if r.node.machine.Level() < usesLevel || !r.over(now, r.node.cfg.Timings.Uses) {
		return
	}
	uses := r.t.uses.take(state)
	if len(uses) == 0 {
		return
	}
	r.last = now
	r.propose(ctx, armor.RecordUses{Uses: uses})
}
