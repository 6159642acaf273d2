package pooler

import (
	"fmt"

	"github.com/armordb/armordb/armor"
)

// crowd counts this node's sessions by what bounds them. Pooler.mu guards it.
type crowd map[string]int

// bounds are what a session counts for: a pool, an Identity object.
type bounds struct{ pool, identity string }

func boundsOf(a armor.Access) bounds {
	return bounds{pool: "pool " + a.Pool.Key(), identity: "identity " + armor.ObjectKey(a.Environment, a.Name)}
}

// enter counts a session, unless that would exceed a bound. A bound that is lowered
// sends nobody away.
func (c crowd) enter(b bounds, a armor.Access) *armor.Denial {
	switch {
	case full(c[b.pool], a.Pool.MaxClients):
		return limitDenial("pool", a.Pool.Name, a.Pool.MaxClients)
	case full(c[b.identity], a.MaxConnections):
		return limitDenial("identity", a.Name, a.MaxConnections)
	}
	c[b.pool]++
	c[b.identity]++
	return nil
}

func full(count, bound int) bool { return bound > 0 && count >= bound }

// leave takes a session out of the counts.
func (c crowd) leave(b bounds) {
	for _, key := range []string{b.pool, b.identity} {
		if c[key]--; c[key] == 0 {
			delete(c, key)
		}
	}
}

func limitDenial(what, name string, bound int) *armor.Denial {
	return &armor.Denial{
		Reason: armor.ReasonLimit, Message: fmt.Sprintf("too many connections for %s %q on this node", what, name),
		Detail: fmt.Sprintf("It may have %d at once on each node.", bound),
	}
}
