package pooler

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
)

// mayCancel bounds how often one session may be cancelled. Few ever are, so the limit
// is made with the first request.
func (c *client) mayCancel() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancels == nil {
		perSecond := c.home.cfg.CancelsPerSecond
		c.cancels = rate.NewLimiter(rate.Limit(perSecond), max(1, int(2*perSecond)))
	}
	return c.cancels.Allow()
}

// cancelPatience bounds the delivery of one cancel request to PostgreSQL.
const cancelPatience = 10 * time.Second

// Cancel carries out a cancel request and reports whether the key was ours; plaintext
// says that it came without TLS. It returns once PostgreSQL has it. A session that waits
// for a server connection stops waiting; an idle one is left alone.
func (p *Pooler) Cancel(ctx context.Context, key armor.CancelKey, plaintext bool) bool {
	c := p.keys.holder(key)
	if c == nil {
		return false
	}
	if !c.mayCancel() {
		return true
	}
	if plaintext && p.cfg.CancelTLSOnly(c.environment) {
		p.cfg.Logger.Info("cancel request refused: it came without TLS", armor.KeySession, c.id, armor.KeyRole, c.part.role)
		return true
	}
	if !c.borrows() {
		c.interrupt()
		return true
	}
	ctx, stop := context.WithTimeout(ctx, cancelPatience)
	defer stop()
	if p.cancel(ctx, c) && p.cfg.Hooks.Canceled != nil {
		p.cfg.Hooks.Canceled(c.pool.key)
	}
	return true
}

// interrupt is a cancel request to a client that borrows nothing.
func (c *client) interrupt() {
	c.mu.Lock()
	canceled := c.canceled
	c.mu.Unlock()
	if canceled != nil {
		canceled()
	}
}

// cancel reports whether there was something to be cancelled.
func (p *Pooler) cancel(ctx context.Context, c *client) bool {
	waiting, server := c.busy()
	if waiting != nil {
		return c.pool.refuse(waiting, canceledError())
	}
	if server == nil {
		return false
	}
	// busy holds the server connection: whatever becomes of the session meanwhile, the
	// request cannot hit another one.
	defer c.pool.locked(func() []func() { return c.pool.cancelDoneLocked(server) })
	if err := server.wire.Cancel(ctx); err != nil {
		p.cfg.Logger.Warn("cancel request failed", armor.KeyPool, c.pool.key, armor.KeyErr, err)
		return false
	}
	return true
}

// busy returns what a cancel request would act on: the session's place in the queue,
// or its server connection, which is then held until cancelDoneLocked.
func (c *client) busy() (*waiter, *ServerConn) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.waiting == nil && c.lent != nil {
		c.lent.cancels++
		return nil, c.lent
	}
	return c.waiting, nil
}
