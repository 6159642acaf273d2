package cluster

import (
	"context"
	"maps"
	"time"

	"github.com/armordb/armordb/armor"
)

// shareCheck is how often the node looks whether its lease still covers its pools.
const shareCheck = 250 * time.Millisecond

// limitsGiven are the limits last given to the Holder, and the latest revision that they
// follow from.
type limitsGiven struct {
	revision uint64
	limits   map[string]int
}

// holdShares gives the Holder its limits whenever they change: with each new state,
// when the lease begins or ends, and when the wait for a former life's server
// connections is over.
func (n *Node) holdShares(ctx context.Context) {
	tick := time.NewTicker(shareCheck)
	defer tick.Stop()
	for {
		state, superseded := n.machine.Current()
		n.giveShares(state)
		select {
		case <-superseded:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) giveShares(state *armor.State) {
	limits := n.limits(state)
	before := n.given.Load()
	changed := before.limits == nil || !maps.Equal(before.limits, limits)
	if changed {
		n.cfg.Holder.SetShares(state.Revision, limits)
	}
	if changed || before.revision != state.Revision {
		n.given.Store(&limitsGiven{state.Revision, limits})
	}
	if changed {
		n.askSoon()
	}
}

// limits are what this node may hold now. Fenced pools may hold nothing, and neither
// may any while server connections of a former life may still be open.
func (n *Node) limits(state *armor.State) map[string]int {
	limits := map[string]int{}
	usable := n.usable() && state.Members.Has(string(n.cfg.Node))
	for share := range state.Shares.Values() {
		if share.Node != n.cfg.Node {
			continue
		}
		limits[share.Pool] = 0
		pool, ok := state.Pools.Get(share.Pool)
		if usable && ok && n.KeepLive(pool.Environment) == nil {
			limits[share.Pool] = max(share.Limit(), 0)
		}
	}
	return limits
}

// usable reports whether a former life's server connections are certainly gone.
func (n *Node) usable() bool { return n.cfg.Clock.Boot() >= n.usableAt }

// held is what a renewal reports. The revision is read first: what is held afterwards
// respects it. While a former life's connections may be open the revision is 0, for
// then our count is not the whole count.
func (n *Node) held() (map[string]int, uint64) {
	if n.cfg.Holder == nil {
		return nil, n.machine.LastCommand()
	}
	given := n.given.Load()
	held := nonZero(n.cfg.Holder.Held())
	if !n.usable() {
		return held, 0
	}
	return held, given.revision
}

// backends is what a renewal tells while a removed node's share is withheld: without it the
// leader cannot tell our server connections from that node's.
func (n *Node) backends() []armor.HostBackends {
	state, _ := n.machine.Current()
	if n.cfg.Holder == nil || !withholds(state) {
		return nil
	}
	return n.cfg.Holder.Backends()
}

// withholds reports whether a removed node is still granted part of any pool.
func withholds(state *armor.State) bool {
	for t := range state.Tombstones.Values() {
		if holdsShares(state, t.ID) {
			return true
		}
	}
	return false
}

func nonZero(held map[string]int) map[string]int {
	held = maps.Clone(held)
	maps.DeleteFunc(held, func(_ string, count int) bool { return count == 0 })
	return held
}
