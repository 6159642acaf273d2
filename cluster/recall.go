package cluster

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// A voter whose disk went back in time votes as if it had never had what it lost: with
// another one that lacks it, too, it can elect a leader that lacks it. The log itself
// cannot tell. So a voter that was started with a log asks the others where theirs end,
// before it takes part in elections, and then has no part in one that would take the
// cluster back behind that.

const (
	// recallPatience is how long a started voter waits for the others' answers. Those
	// who are down do not keep it from voting: with them, nobody could.
	recallPatience = 5 * time.Second
	// recallPause is how long it waits before it asks again.
	recallPause = 200 * time.Millisecond
)

// recall is what a started voter has learned of the ends of other logs.
type recall struct {
	mu      sync.Mutex // guards all below
	done    bool       // it takes part in elections
	longest entryID
	until   time.Duration // boot instant until which longest binds
}

// recallTime is how long the ends of other logs bind. One node's word is enough for a length that no
// log has: it must not keep the others from electing for good.
const recallTime = time.Minute

func (r *recall) learn(e entryID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.compare(r.longest) > 0 {
		r.longest = e
	}
}

func (r *recall) finish(now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done, r.until = true, now+recallTime
}

// allows returns why a log that ends with e may not win an election; nil when it may.
func (r *recall) allows(e entryID, now time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.done:
		return fmt.Errorf("%w: this node was started a moment ago, and is asking the others how far they are", armor.ErrUnavailable)
	case now < r.until && e.compare(r.longest) < 0:
		return fmt.Errorf("%w: a log that ends with entry %d of term %d lacks what another node had when this one was started: entry %d of term %d",
			armor.ErrConflict, e.index, e.term, r.longest.index, r.longest.term)
	}
	return nil
}

// compare orders the ends of logs as elections do: by term, then by index.
func (e entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(e.term, other.term), cmp.Compare(e.index, other.index))
}

// recollect asks the other voters where their logs end, until as many have answered as there
// must be among a majority, or patience is over.
func (n *Node) recollect(ctx context.Context) {
	defer func() { n.recall.finish(n.cfg.Clock.Boot()) }()
	if n.cfg.mistakes.voteAtOnce {
		return
	}
	ends := n.cfg.Clock.Boot() + recallPatience
	for {
		voters := n.voterIDs()
		round, cancel := context.WithTimeout(ctx, n.cfg.Timings.RenewTimeout)
		answers := n.askVoters(round, voters, 0)
		cancel()
		for _, a := range answers {
			n.recall.learn(entryID{a.LastIndex, a.LastTerm})
		}
		switch {
		case len(answers) >= witnesses(voters, n.cfg.Node):
			return
		case n.cfg.Clock.Boot() >= ends:
			n.cfg.Logger.Warn("takes part in elections without having heard from a majority of the other voters")
			return
		}
		if !sleep(ctx, recallPause) {
			return
		}
	}
}

// mayStand returns why this node must not stand for election; nil when it may.
func (n *Node) mayStand() error {
	if err := n.mayLead(); err != nil {
		return err
	}
	return n.recall.allows(n.lastEntry(), n.cfg.Clock.Boot())
}

// mayWin returns why a candidate may not have this node's vote.
func (n *Node) mayWin(command any) error {
	now := n.cfg.Clock.Boot()
	switch m := command.(type) {
	case *raft.RequestVoteRequest:
		return n.recall.allows(entryID{m.LastLogIndex, m.LastLogTerm}, now)
	case *raft.RequestPreVoteRequest:
		return n.recall.allows(entryID{m.LastLogIndex, m.LastLogTerm}, now)
	}
	return nil
}
