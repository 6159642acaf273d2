package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

const (
	// lastWordTime is how long a node that ends tries to say so.
	lastWordTime = 2 * time.Second
	// lastWordPause is how long it waits before it tries again.
	lastWordPause = 50 * time.Millisecond
)

// Retire ends this node's part while the rooms that serve other nodes still work: it serves
// nobody from now on, hands leadership over, so that the others need not find out that it is
// gone, and tells whoever leads then that no change has to wait for it. It takes a few
// seconds at most; Run does the same when nobody has.
func (n *Node) Retire(ctx context.Context) {
	if n.retired.Swap(true) || n.raft.Load() == nil {
		return
	}
	n.stepDown()
	if n.cfg.mistakes.leaveMute {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastWordTime)
	defer cancel()
	for turn := 0; !n.saidLastWord(ctx, turn) && sleep(ctx, lastWordPause); turn++ {
	}
}

// stepDown hands leadership over.
func (n *Node) stepDown() {
	r := n.raft.Load()
	for range 3 {
		if r.State() != raft.Leader || n.voters() < 2 {
			return
		}
		if err := r.LeadershipTransfer().Error(); err == nil {
			return
		}
	}
}

// saidLastWord reports whether the leader has heard that this life is over, or there is
// nobody to tell.
func (n *Node) saidLastWord(ctx context.Context, turn int) bool {
	to, ok := n.whomToAsk(turn)
	if !ok || to == n.cfg.Node {
		return !ok || n.voters() < 2
	}
	q := n.renewal()
	q.Ended = true
	err := n.redirected(to, func(to armor.NodeID) error {
		_, err := n.carry(ctx, to, q)
		return err
	})
	// A removed node is denied a lease, and was listened to.
	return err == nil || errors.Is(err, armor.ErrDenied)
}
