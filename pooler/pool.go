package pooler

import (
	"container/list"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/password"
)

// node is what the pools of this process have in common. It is immutable, but for what
// has a lock of its own.
type node struct {
	cfg     Config
	servers *backend.Dialer
	errands *errands
	nextID  atomic.Uint64 // of clients and server connections
	ticked  atomic.Uint64 // see ticks

	withheld atomic.Pointer[[]armor.Withheld] // of all pools; nil: nothing
}

// withheldOf tells people what is withheld of a pool's budget; nothing if nothing is.
func (n *node) withheldOf(pool string) string {
	if all := n.withheld.Load(); all != nil {
		return armor.WithheldWords(*all, pool)
	}
	return ""
}

// ticks is core.Config.Tick.
func (n *node) ticks() uint64 { return n.ticked.Add(1) }

// pool is one armor.Pool on this node: one limit for the server connections of all
// of its roles. Waiters are served in the order in which they came, whatever their
// role; idle connections are lent last in, first out, so that a quiet pool's oldest
// ones stay unused.
//
// Methods that end in Locked return what is to be done after unlocking: granting,
// logging in and ending connections are never done under the lock.
type pool struct {
	key     string // immutable, as are node, made and waited
	node    *node
	made    time.Time
	waited  func(time.Duration) // Hooks.QueryWait's, or nil
	lookups password.Lookups    // of verifiers; it has a lock of its own

	mu         sync.Mutex // guards below; never held while dialling, writing or calling back
	cfg        armor.Pool
	database   armor.Database
	generation int    // of database; connections of an earlier one are not lent again
	firstHost  string // to log in to; empty: the database's order
	retired    bool   // serves nobody any more
	switches   switches
	limit      int

	open      int                      // places taken: from before a dial until the end was read
	closing   int                      // of those, connections that are being ended
	pinned    int                      // clients that keep one between transactions, or are about to
	silent    map[string]time.Time     // hosts at which nobody answers those who look, and since when
	former    map[uint64]backend.Entry // backends of a former life that hold a place, by their number in the register
	searching bool                     // for them
	conns     map[*ServerConn]struct{}
	subs      map[part]*subpool
	waiters   list.List     // of *waiter, the longest wait first
	alarm     alarm         // for them
	empty     chan struct{} // closed when open falls to what is held back; nil while nobody waits for that
	awaited   []awaited     // whoever waits for something else
	counted   counted
}

func newPool(key string, node *node) *pool {
	p := &pool{key: key, node: node, made: time.Now(), silent: map[string]time.Time{}, former: map[uint64]backend.Entry{}, conns: map[*ServerConn]struct{}{}, subs: map[part]*subpool{}}
	if hook := node.cfg.Hooks.QueryWait; hook != nil {
		p.waited = hook(key)
	}
	return p
}

// locked runs change under the lock, and what it returns after.
func (p *pool) locked(change func() []func()) {
	p.mu.Lock()
	todo := change()
	p.mu.Unlock()
	for _, do := range todo {
		do()
	}
}

// configure puts a configuration in force. Connections that were made to another
// server, in another way, or lent in another mode, end when they are idle.
func (p *pool) configure(cfg armor.Pool, database armor.Database) {
	p.locked(func() (todo []func()) {
		if !reflect.DeepEqual(database, p.database) || cfg.Mode != p.cfg.Mode || connectsOtherwise(cfg, p.cfg) {
			p.database = database
			p.generation++
			p.firstHost = ""
			todo = append(todo, p.lookups.Forget)
			for _, sub := range p.subs {
				sub.reports.forget()
				sub.backoff = backoff{}
				_, may := database.Auth(sub.role)
				sub.known = sub.known && may
			}
		}
		p.cfg, p.retired = cfg, false
		p.warmUpLocked()
		p.lookAgainLocked()
		return append(todo, p.settleLocked()...)
	})
}

// connectsOtherwise reports whether a server connection has something else in force from its
// login on.
func connectsOtherwise(a, b armor.Pool) bool {
	return a.ConnectQuery != b.ConnectQuery || a.ConnectQuery != "" && !slices.Equal(a.KeepSettings, b.KeepSettings)
}

// config returns the configuration in force.
func (p *pool) config() armor.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg
}

// retire stops lending: waiters are refused, idle connections end now and lent ones
// when they come back.
func (p *pool) retire() {
	p.locked(func() []func() {
		p.retired = true
		return p.settleLocked()
	})
}

func (p *pool) serves() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.retired
}

func (p *pool) setLimit(limit int) {
	p.locked(func() []func() {
		p.limit = max(limit, 0)
		return p.settleLocked()
	})
}

func (p *pool) settle() { p.locked(p.settleLocked) }

func (p *pool) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// noShare says why nobody is served where the node holds no share.
func (p *pool) noShare() string {
	words := "this node holds no share of the pool"
	if withheld := p.node.withheldOf(p.key); withheld != "" {
		words += ": " + withheld
	}
	return words
}

// status describes the pool, as far as it knows, unless it is retired.
func (p *pool) status() (s armor.PoolStatus, database armor.Database, serves bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s = armor.PoolStatus{
		Pool: p.key, Limit: p.limit, Open: p.open, Waiting: p.waiters.Len(), Pinned: p.pinned, Withheld: len(p.former), Paused: p.switches.paused, Disabled: p.switches.disabled,
	}
	if s.Limit == 0 {
		s.NotReady = p.noShare()
	}
	if n := len(p.former); n > 0 && n >= p.limit {
		s.NotReady = fmt.Sprintf("%d places are held back for server connections that nobody has any more", n)
	}
	for _, sub := range p.subs {
		s.Idle += len(sub.idle)
		if sub.failures > 0 && sub.terms == nil && !sub.isClients() {
			s.NotReady = fmt.Sprintf("login as %s: %v", sub.role, sub.failure)
		}
	}
	return s, p.database, !p.retired
}
