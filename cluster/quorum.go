package cluster

import (
	"fmt"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// leavesQuorum refuses a removal that would leave fewer voters that answer than more than half
// of them, unless its operator insists: nothing could be changed then, and after T_live
// nobody be served.
func (n *Node) leavesQuorum(t *tenure, c armor.Command) error {
	leaving, removes := removedBy(c)
	if !removes || forced(c) || !n.votes(n.raft.Load(), leaving) {
		return nil
	}
	var left, silent []string
	for _, s := range servers(n.raft.Load()) {
		id := armor.NodeID(s.ID)
		if s.Suffrage != raft.Voter || id == leaving {
			continue
		}
		left = append(left, string(id))
		if !n.answers(t, id) {
			silent = append(silent, string(id))
		}
	}
	answering, needed := len(left)-len(silent), len(left)/2+1
	if len(left) == 0 || answering >= needed {
		return nil // the machine refuses the last voter
	}
	return fmt.Errorf("%w: without node %s %d of %d voters would answer, and %d have to: %s %s not. "+
		"Bring it back or remove it first; --force insists, and then nothing can be changed and nobody be served until it is back",
		armor.ErrConflict, leaving, answering, len(left), needed, strings.Join(silent, ", "), map[bool]string{true: "does", false: "do"}[len(silent) == 1])
}

// answers reports whether a node has renewed just now. The leader asks itself in memory.
func (n *Node) answers(t *tenure, node armor.NodeID) bool {
	q, age, ok := t.lives.lastReport(node)
	return node == n.cfg.Node || ok && age < reportAge && !q.Ended
}

func forced(c armor.Command) bool {
	switch c := c.(type) {
	case armor.RemoveMember:
		return c.Force
	case armor.ReplaceMember:
		return c.Force
	}
	return false
}
