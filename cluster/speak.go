package cluster

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// vouchTime is how long a voter's word that somebody leads is good for.
const vouchTime = 10 * time.Second

// vouched remembers whom voters named as the leader. A node that slept through a
// change of voters does not know its new leader; the old voters tell it.
type vouched struct {
	mu    sync.Mutex // guards below
	until map[armor.NodeID]time.Duration
}

func (v *vouched) add(node armor.NodeID, until time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.until == nil || len(v.until) > 64 {
		v.until = map[armor.NodeID]time.Duration{}
	}
	v.until[node] = until
}

func (v *vouched) has(node armor.NodeID, now time.Duration) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now < v.until[node]
}

// maySpeak says whether Raft messages of a node may be believed: it votes, or a node
// that may speak has named it as the leader.
func (n *Node) maySpeak(node armor.NodeID) error {
	if n.knows(node) || n.vouched.has(node, n.cfg.Clock.Boot()) {
		return nil
	}
	return fmt.Errorf("%w: node %q is not a voter here", armor.ErrDenied, node)
}

// knows reports whether a node votes by our own configuration or, while we have none,
// is one that we were told of when we joined.
func (n *Node) knows(node armor.NodeID) bool {
	r := n.raft.Load()
	if r == nil {
		return false
	}
	all := servers(r)
	if len(all) == 0 {
		return slices.Contains(n.cfg.Seeds, node)
	}
	return slices.ContainsFunc(all, func(s raft.Server) bool {
		return s.ID == raft.ServerID(node) && s.Suffrage == raft.Voter
	})
}

// heardOfLeader takes a voter's word for who leads.
func (n *Node) heardOfLeader(from, leader armor.NodeID) {
	if leader != "" && leader != n.cfg.Node && n.knows(from) {
		n.vouched.add(leader, n.cfg.Clock.Boot()+vouchTime)
	}
}
