package pooler

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// keys are the cancel keys of the live sessions.
type keys struct {
	mu    sync.Mutex // guards below
	byPID map[uint32][]*client
}

func newKeys() *keys { return &keys{byPID: map[uint32][]*client{}} }

// giveKey gives a client a key that no other has, as long as the protocol asks for that
// is spoken with it; pid is PostgreSQL's in session mode.
func (p *Pooler) giveKey(c *client, s pgwire.Startup, pid uint32) {
	k := p.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	for c.key.PID == 0 || k.holderLocked(c.key) != nil {
		c.key = p.newKey(c.mode, pid)
		if s.LongKeys() {
			c.key = p.lengthen(c.key)
		}
	}
	k.byPID[c.key.PID] = append(k.byPID[c.key.PID], c)
}

func (p *Pooler) newKey(mode armor.PoolMode, pid uint32) armor.CancelKey {
	if mode == armor.SessionMode {
		return armor.NewSessionKey(p.cfg.Node, pid, random())
	}
	return armor.NewTransactionKey(p.cfg.Node, random())
}

func (p *Pooler) lengthen(k armor.CancelKey) armor.CancelKey {
	var b [14]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	return k.Lengthen(p.cfg.Node, b, p.cfg.CancelSigner)
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	return binary.BigEndian.Uint64(b[:])
}

func (k *keys) remove(c *client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var rest []*client
	for _, other := range k.byPID[c.key.PID] {
		if other != c {
			rest = append(rest, other)
		}
	}
	if k.byPID[c.key.PID] = rest; len(rest) == 0 {
		delete(k.byPID, c.key.PID)
	}
}

func (k *keys) holder(key armor.CancelKey) *client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holderLocked(key)
}

func (k *keys) holderLocked(key armor.CancelKey) (found *client) {
	for _, c := range k.byPID[key.PID] {
		if c.key.Equal(key) {
			found = c
		}
	}
	return found
}

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
