package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// A removed node that never speaks again cannot say that it has let go of its server
// connections. Once its lease is over it opens no more of them; so PostgreSQL is asked, and
// what it has beyond what the other nodes say is theirs may be that node's:
//
//	lease over ──▶ look ──▶ look again ──▶ what nobody has said is his: withheld
//	                 ▲                                  │
//	                 └────────── after a pause ─────────┘ until there is none
//
// A login that was under way when the lease ended shows in the second look at the latest, or
// is one of those in flight that no budget bounds (docs/promises.md).

const (
	searchPause    = time.Second // between two looks; it doubles
	maxSearchPause = 10 * time.Second
	searchTime     = 30 * time.Second // for one look
	looksNeeded    = 2
)

// backend names one server process of PostgreSQL.
type backend struct {
	host string
	pid  uint32
}

// searches are the leader's, one for each pool of which a removed node holds a share. Looks
// run beside the chores.
type searches struct {
	node  *Node
	lives *lives

	mu    sync.Mutex // guards below
	pools map[string]*search
}

// search is what was seen of one pool's backends.
type search struct {
	running bool
	next    time.Duration // boot instant of the next look
	pause   time.Duration
	of      []armor.NodeID // the removed nodes whose leases were over when it began, sorted
	looks   int            // in a row that were answered
	found   map[backend]bool
	err     error // why the latest look has failed; nil: it was answered
}

func newSearches(n *Node, l *lives) *searches {
	return &searches{node: n, lives: l, pools: map[string]*search{}}
}

// seek begins the looks that are due, and takes out of what was found all that nodes have
// said is theirs. Looks end with ctx, that of the leader's office.
func (s *searches) seek(ctx context.Context, state *armor.State) {
	wanted := s.wanted(state)
	claims := s.lives.backends()
	now := s.node.cfg.Clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for pool := range s.pools {
		if wanted[pool] == nil && !s.pools[pool].running {
			delete(s.pools, pool)
		}
	}
	for pool, of := range wanted {
		q := s.pools[pool]
		if q == nil || !slices.Equal(q.of, of) && !q.running {
			q = &search{of: of, pause: searchPause}
			s.pools[pool] = q
		}
		q.explain(claims, q.of, s.node.cfg.mistakes.explainAll)
		if !q.running && now >= q.next && s.node.cfg.Holder != nil {
			q.running = s.node.tasks.start(func() { s.look(ctx, pool, q) })
		}
	}
}

// wanted are the removed nodes by pool whose shares only PostgreSQL can settle.
func (s *searches) wanted(state *armor.State) map[string][]armor.NodeID {
	wanted := map[string][]armor.NodeID{}
	for share := range state.Shares.Values() {
		t, removed := state.Tombstones.Get(string(share.Node))
		if !removed || t.SharesSettled || share.Granted == 0 || state.Members.Has(string(share.Node)) {
			continue
		}
		if s.lives.quiet(share.Node) || s.node.cfg.mistakes.ignoreLeases {
			wanted[share.Pool] = append(wanted[share.Pool], share.Node)
		}
	}
	return wanted
}

// look asks PostgreSQL once.
func (s *searches) look(ctx context.Context, pool string, q *search) {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	seen, err := s.node.cfg.Holder.Look(ctx, pool)
	s.mu.Lock()
	defer s.mu.Unlock()
	first := q.err == nil
	q.running, q.err = false, err
	q.next = s.node.cfg.Clock.Boot() + q.pause
	if q.looks++; q.looks >= looksNeeded {
		q.pause = min(2*q.pause, maxSearchPause)
	}
	if err != nil {
		q.looks, q.found = 0, nil
		if first {
			s.node.cfg.Logger.Warn("cannot look for server connections of a removed node", armor.KeyPool, pool, armor.KeyErr, err)
		}
		return
	}
	q.found = map[backend]bool{}
	for _, h := range seen {
		for _, pid := range h.PIDs {
			q.found[backend{h.Host, pid}] = true
		}
	}
}

// explain takes out what nodes other than the searched ones say is theirs.
func (q *search) explain(claims map[armor.NodeID][]armor.HostBackends, of []armor.NodeID, all bool) {
	for node, hosts := range claims {
		if slices.Contains(of, node) {
			continue
		}
		for _, h := range hosts {
			for _, pid := range h.PIDs {
				delete(q.found, backend{h.Host, pid})
			}
		}
	}
	if all {
		clear(q.found)
	}
}

// left is how many server connections of a removed node PostgreSQL may have, if that is known.
func (s *searches) left(pool string, node armor.NodeID) (count int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.pools[pool]
	if q == nil || q.looks < looksNeeded || !slices.Contains(q.of, node) {
		return 0, false
	}
	return len(q.found), true
}

// why says what the share of a removed node waits for once its lease is over.
func (s *searches) why(w armor.Withheld) string {
	insist := fmt.Sprintf("if they are certainly gone: armorctl node remove %s --shares-settled", w.Node)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch q := s.pools[w.Pool]; {
	case q == nil || q.err == nil && q.looks < looksNeeded:
		return "it was removed, and PostgreSQL is being asked what it has left there"
	case q.err != nil:
		return fmt.Sprintf("it was removed, and PostgreSQL cannot be asked what it has left there (%v); %s", q.err, insist)
	default:
		return fmt.Sprintf("it was removed, and PostgreSQL has %d server connections in the pool's roles that no other node says are its own; %s",
			len(q.found), insist)
	}
}

// withheld is what the pools' budgets are short of, with all that this node knows of why.
func (n *Node) withheld() []armor.Withheld {
	state, _ := n.machine.Current()
	all := state.Withheld()
	t, err := n.tenure()
	if err != nil {
		return all
	}
	for i, w := range all {
		tombstone, removed := state.Tombstones.Get(string(w.Node))
		switch {
		case tombstone.SharesSettled:
			all[i].Why = "it was removed, and has by its lease until then to close what it may have, which an operator has said is gone"
			all[i].Until = fencedBy(t.lives.until(w.Node)+closingTime, n.cfg.Clock.Boot(), n.cfg.Clock.Wall())
		case removed && t.lives.quiet(w.Node):
			all[i].Why = t.searches.why(w)
		case removed:
			all[i].Why = "it was removed, and may still serve by its lease; then PostgreSQL is asked what it has left there"
			all[i].Until = fencedBy(t.lives.until(w.Node), n.cfg.Clock.Boot(), n.cfg.Clock.Wall())
		case t.lives.quiet(w.Node):
			all[i].Why = fmt.Sprintf("it has stopped answering; if it does not come back: armorctl node remove %s", w.Node)
		}
	}
	return all
}

func countBackends(all []armor.HostBackends) (n int) {
	for _, h := range all {
		n += len(h.PIDs)
	}
	return n
}
