package pooler

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/armordb/armordb/armor"
)

// roster is who is here: the sessions of this node, how many each may be, and whether it
// takes new ones.
type roster struct {
	mu      sync.Mutex // guards below; never held while calling
	clients map[*client]struct{}
	crowd   crowd
	closed  bool          // takes no new ones
	drained bool          // sends everybody away, also those that still come
	empty   chan struct{} // closed when the last client has gone; nil until drain
	leaving func()        // to be called when the last has gone that borrows; nil until closeDoor
}

func newRoster() *roster { return &roster{clients: map[*client]struct{}{}, crowd: crowd{}} }

// enter makes a client known, unless the door is closed or there are enough of its kind.
func (r *roster) enter(c *client, a armor.Access) *armor.Denial {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return drainingDenial()
	}
	if denial := r.crowd.enter(c.bounds, a); denial != nil {
		return denial
	}
	r.clients[c] = struct{}{}
	c.draining = r.drained // nobody else knows c yet
	return nil
}

// has reports whether a client is still here.
func (r *roster) has(c *client) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.clients[c]
	return ok
}

// leave forgets a client.
func (r *roster) leave(c *client) {
	defer r.lastLeft()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.clients, c)
	r.crowd.leave(c.bounds)
	r.checkEmptyLocked()
}

func (r *roster) all() []*client {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.clients))
}

// of returns the clients of a pool.
func (r *roster) of(pl *pool) []*client {
	return slices.DeleteFunc(r.all(), func(c *client) bool { return c.pool != pl })
}

func (r *roster) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.clients)
}

// drain has everybody sent away, and returns who is here and a channel that is closed when
// nobody is for the first time. The door is the edge's to close: who is let in all the same
// was in its login by then.
func (r *roster) drain() (clients []*client, empty <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drained = true
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	r.checkEmptyLocked()
	return slices.Collect(maps.Keys(r.clients)), r.empty
}

func (r *roster) checkEmptyLocked() {
	if r.empty == nil || len(r.clients) > 0 {
		return
	}
	select {
	case <-r.empty:
	default:
		close(r.empty)
	}
}

// closeDoor takes no new clients any more, and calls then once, when the last has gone
// that borrows.
func (r *roster) closeDoor(then func()) {
	r.mu.Lock()
	r.closed, r.leaving = true, then
	r.mu.Unlock()
	r.lastLeft()
}

// lastLeft does what was to be done when the last client has gone.
func (r *roster) lastLeft() {
	if then := r.takeLeaving(); then != nil {
		then()
	}
}

func (r *roster) takeLeaving() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leaving == nil {
		return nil
	}
	for c := range r.clients {
		if c.borrows() {
			return nil
		}
	}
	then := r.leaving
	r.leaving = nil
	return then
}

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
