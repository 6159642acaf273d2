package fsm

import (
	"slices"

	"github.com/armordb/armordb/armor"
)

// A pool's shares are records by (pool, node). The machine bounds them: whoever leads may
// move them with SetShares, and what would exceed the budget is refused. By itself it does
// no more than armor.SharePlan does while no holder is known to have let go of anything:
//
//	           levelPool                    SetShares, once the node
//	           sets targets                 holds no more than its target
//	granted ───────────────▶ target falls ───────────────▶ granted falls
//	           and raises granted
//	           while there is room
//
// A record outlives its pool and its node for as long as it is granted anything.
// Invariant: the granted shares of a pool exceed its budget only by what they did
// before the budget was lowered, and then they only fall.

// levelPools levels every pool, after the set of members has changed. That joining and
// leaving cut all pools anew, evenly, is what entries up to level 3 mean.
func (d *draft) levelPools() error {
	for _, p := range d.Pools.All() {
		if err := d.levelPool(p); err != nil {
			return err
		}
	}
	return nil
}

// levelPool cuts the pool's budget evenly over the members: targets at once, granted
// shares only upwards and only while the budget has room.
func (d *draft) levelPool(p armor.Pool) error {
	nodes := d.nodes()
	if p.Budget < len(nodes) {
		return refuse(armor.ErrInvalid,
			"budget %d of pool %s is smaller than the number of nodes, %d: each node needs at least one server connection",
			p.Budget, p.Key(), len(nodes))
	}
	d.putShares(armor.SharePlan{Pool: p.Key(), Budget: p.Budget, Members: nodes, Shares: d.SharesOf(p.Key())}.Next())
	return nil
}

// retire aims the shares of a deleted pool at nothing.
func (d *draft) retire(pool string) {
	d.putShares(armor.SharePlan{Pool: pool, Shares: d.SharesOf(pool)}.Next())
}

// putShares records shares, and forgets those that hold nothing and are to hold nothing.
func (d *draft) putShares(shares []armor.Share) {
	for _, share := range shares {
		if share.Granted == 0 && share.Target == 0 {
			remove(d, armor.Shares, share)
			continue
		}
		put(d, armor.Shares, share)
	}
}

func (d *draft) nodes() []armor.NodeID {
	var nodes []armor.NodeID
	for _, m := range d.Members.All() {
		nodes = append(nodes, m.ID)
	}
	return nodes
}

func granted(shares []armor.Share) int {
	sum := 0
	for _, s := range shares {
		sum += s.Granted
	}
	return sum
}

func targeted(shares []armor.Share) int {
	sum := 0
	for _, s := range shares {
		sum += s.Target
	}
	return sum
}

// setShares moves shares of one pool, all of them or none.
func (d *draft) setShares(c armor.SetShares) error {
	before := d.SharesOf(c.Pool)
	p, live := d.Pools.Get(c.Pool)
	if !live && len(before) == 0 {
		return refuse(armor.ErrNotFound, "there is no pool %q", c.Pool)
	}
	if err := checkDistinct(c); err != nil {
		return err
	}
	for _, share := range c.Shares {
		if err := d.setShare(share, live && d.Members.Has(string(share.Node))); err != nil {
			return err
		}
	}
	// A deleted pool has budget 0.
	after := d.SharesOf(c.Pool)
	if sum := targeted(after); sum > p.Budget && sum > targeted(before) {
		return refuse(armor.ErrConflict, "the targets of pool %s would be %d server connections, and its budget is %d",
			c.Pool, sum, p.Budget)
	}
	return withinBudget(p.Budget, before, after)
}

// withinBudget refuses whatever leaves more granted than the budget allows, unless
// nothing has risen: above a lowered budget shares only fall.
func withinBudget(budget int, before, after []armor.Share) error {
	sum := granted(after)
	if sum <= budget {
		return nil
	}
	for _, share := range after {
		old := 0
		if i := slices.IndexFunc(before, func(s armor.Share) bool { return s.Node == share.Node }); i >= 0 {
			old = before[i].Granted
		}
		if share.Granted > old {
			return refuse(armor.ErrConflict,
				"pool %s would have %d server connections granted, and its budget is %d: the share of node %s may not rise from %d",
				share.Pool, sum, budget, share.Node, old)
		}
	}
	return nil
}

func checkDistinct(c armor.SetShares) error {
	for i, share := range c.Shares {
		if share.Pool != c.Pool {
			return refuse(armor.ErrInvalid, "a share of pool %q among those of %q", share.Pool, c.Pool)
		}
		if share.Granted < 0 || share.Target < 0 {
			return refuse(armor.ErrInvalid, "the share of node %s of pool %s is negative", share.Node, c.Pool)
		}
		if slices.ContainsFunc(c.Shares[:i], func(s armor.Share) bool { return s.Node == share.Node }) {
			return refuse(armor.ErrInvalid, "node %s is given two shares of pool %s", share.Node, c.Pool)
		}
	}
	return nil
}

// setShare changes one record. holds says whether the node may hold any of the pool:
// that of a removed node or a deleted pool may only fall.
func (d *draft) setShare(share armor.Share, holds bool) error {
	key := armor.ShareKey(share.Pool, share.Node)
	old, had := d.Shares.Get(key)
	switch {
	case !holds && (!had || share.Granted > old.Granted || share.Target > old.Target):
		return refuse(armor.ErrConflict, "node %s is no member, or pool %s was deleted: its share may only fall from %d (target %d)",
			share.Node, share.Pool, old.Granted, old.Target)
	case share.Granted < old.Limit():
		return refuse(armor.ErrConflict,
			"node %s may be using %d server connections of pool %s: lower its target first, and what is granted once it has closed them",
			share.Node, old.Limit(), share.Pool)
	case !holds && share.Granted == 0:
		remove(d, armor.Shares, share)
	default:
		put(d, armor.Shares, share)
	}
	return nil
}
