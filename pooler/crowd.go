package pooler

import (
	"fmt"

	"github.com/armordb/armordb/armor"
)

// crowd counts this node's sessions by what bounds them: a pool, an Identity object.
// Pooler.mu guards it.
type crowd map[string]int

// enterLocked counts a client, unless that would exceed a bound. A bound that is lowered
// sends nobody away.
func (p *Pooler) enterLocked(c *client, a armor.Access) *armor.Denial {
	pool, identity := "pool "+a.Pool.Key(), "identity "+armor.ObjectKey(a.Environment, a.Name)
	switch {
	case full(p.crowd[pool], a.Pool.MaxClients):
		return limitDenial("pool", a.Pool.Name, a.Pool.MaxClients)
	case full(p.crowd[identity], a.MaxConnections):
		return limitDenial("identity", a.Name, a.MaxConnections)
	}
	c.crowds = []string{pool, identity}
	for _, key := range c.crowds {
		p.crowd[key]++
	}
	return nil
}

func full(count, bound int) bool { return bound > 0 && count >= bound }

// leaveLocked takes a client out of the counts.
func (p *Pooler) leaveLocked(c *client) {
	for _, key := range c.crowds {
		if p.crowd[key]--; p.crowd[key] == 0 {
			delete(p.crowd, key)
		}
	}
	c.crowds = nil
}

func limitDenial(what, name string, bound int) *armor.Denial {
	return &armor.Denial{
		Reason: armor.ReasonLimit, Message: fmt.Sprintf("too many connections for %s %q on this node", what, name),
		Detail: fmt.Sprintf("It may have %d at once on each node.", bound),
	}
}
