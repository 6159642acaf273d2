package pooler

import (
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// client is a session as the pooler keeps it.
type client struct {
	home     *Pooler // immutable, as is all that is not said to be guarded
	pool     *pool   // that it borrows from; nil at the console
	borrower         // what it has of the pool is guarded by pool.mu

	guest        Guest
	ending       *ending
	conn         net.Conn
	since        time.Time
	mode         armor.PoolMode
	state        armor.OnState
	keepSettings []string
	key          armor.CancelKey // given before any request can name it: see keys

	environment string
	bounds      bounds
	pinning     pinning

	mu       sync.Mutex          // guards below; never held while calling
	drain    func(*pgwire.Error) // has the driver end the session; nil: it has none yet
	draining bool                // it has been, or will be, called
	loggedIn time.Time           // when drain was set
	timeOuts func()              // tells the driver that they have changed
	canceled func()              // what a cancel request does, if it borrows nothing
	cancels  *rate.Limiter       // of cancel requests; nil before the first
}

// borrows reports whether the client is one of a pool, and not one of the console.
func (c *client) borrows() bool { return c.pool != nil }

// refusal is what a client is told when it gets no server connection.
func (c *client) refusal(err error) *pgwire.Error {
	if denial, ok := errors.AsType[*armor.Denial](err); ok {
		return wireError(c.guest.Refuse(denial))
	}
	return wireError(err)
}

// settling is for the first transaction of who has just logged in: nobody connects in order
// to be sent away.
const settling = time.Second

// onDrain is called when the client has logged in.
func (c *client) onDrain(drain func(*pgwire.Error)) {
	c.mu.Lock()
	c.drain, c.loggedIn = drain, time.Now()
	now := c.draining
	c.mu.Unlock()
	if now {
		c.sendAway(drain, settling)
	}
}

// drainNow asks for the session's end at its next idle boundary, though not within its
// login or right behind it.
func (c *client) drainNow() {
	c.mu.Lock()
	before, drain, since := c.draining, c.drain, time.Since(c.loggedIn)
	c.draining = true
	c.mu.Unlock()
	if !before && drain != nil {
		c.sendAway(drain, settling-since)
	}
}

// sendAway has the driver end the session at its first idle boundary that comes after a
// time, which may have passed.
func (c *client) sendAway(drain func(*pgwire.Error), after time.Duration) {
	if after <= 0 {
		drain(c.refusal(drainingDenial()))
		return
	}
	time.AfterFunc(after, func() {
		if c.home.roster.has(c) {
			drain(c.refusal(drainingDenial()))
		}
	})
}

// kill ends a client's session now: in the queue, or wherever it is.
func (c *client) kill(d *armor.Denial) {
	if waiting := c.inQueue(); waiting != nil && c.pool.refuse(waiting, d) {
		return
	}
	c.ending.end(c.guest.Refuse(d), func() {})
}

// inQueue returns the client's place in its pool's queue, if it has one.
func (c *client) inQueue() *waiter {
	if !c.borrows() {
		return nil
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.waiting
}
