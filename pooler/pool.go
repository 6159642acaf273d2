package pooler

import (
	"container/list"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/password"
)

// pool is one armor.Pool on this node: one limit for the server connections of all
// of its roles. Waiters are served in the order in which they came, whatever their
// role; idle connections are lent last in, first out, so that a quiet pool's oldest
// ones stay unused.
//
// Methods that end in Locked return what is to be done after unlocking: granting,
// logging in and ending connections are never done under the lock.
type pool struct {
	key     string              // immutable, as are home and waited
	home    *Pooler             // its errands, configuration and hooks
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

	open    int // places taken: from before a dial until the end was read
	closing int // of those, connections that are being ended
	conns   map[*ServerConn]struct{}
	subs    map[part]*subpool
	waiters list.List     // of *waiter, the longest wait first
	alarm   alarm         // for them
	empty   chan struct{} // closed when open falls to 0; nil while nobody waits for that
	awaited []awaited     // whoever waits for something else
	counted counted
}

// subpool is one part of a pool. Its pool's lock guards it.
type subpool struct {
	part
	terms   *terms        // of its logins; nil: those of everybody
	idle    []*ServerConn // the longest unused first
	live    int           // connections that are logged in and not being ended
	opening int           // logins under way
	coming  int           // connections that will be idle soon: logins, resets, and those held for a cancel

	promised int  // in a round: of those that are coming, how many are meant for waiters seen before
	stuck    bool // in a round: nothing more can be done for its waiters

	known    bool      // it has logged in before, or is to be warm from the start
	lends    uint64    // how often it has lent
	lendsAt  uint64    // lends when it was last tended
	usedAt   time.Time // when that was last seen to change
	failures int       // logins that failed in a row
	failure  error     // the last one's, while failures is not 0
	retryAt  time.Time // no login before

	base    *core.Params                 // what a new connection reports; nil until the first login
	called  map[application]*core.Params // the same with an application's name in it, so that its clients share one
	learned map[string]*core.Params      // what one reports after the startup settings in the key were applied
}

const (
	maxLogins    = 8   // logins under way at once, of one role in one pool
	maxLearned   = 256 // combinations of startup settings remembered
	firstBackoff = time.Second
	maxBackoff   = 15 * time.Second
)

func newPool(key string, home *Pooler) *pool {
	p := &pool{key: key, home: home, conns: map[*ServerConn]struct{}{}, subs: map[part]*subpool{}}
	if hook := home.cfg.Hooks.QueryWait; hook != nil {
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
		if !reflect.DeepEqual(database, p.database) || cfg.Mode != p.cfg.Mode {
			p.database = database
			p.generation++
			p.firstHost = ""
			todo = append(todo, p.lookups.Forget)
			for _, sub := range p.subs {
				sub.base, sub.learned, sub.failures, sub.retryAt = nil, nil, 0, time.Time{}
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

// status describes the pool unless it is retired.
func (p *pool) status() (armor.PoolStatus, bool) {
	p.mu.Lock()
	s := armor.PoolStatus{Pool: p.key, Limit: p.limit, Open: p.open, Waiting: p.waiters.Len(), Paused: p.switches.paused, Disabled: p.switches.disabled}
	failure := ""
	for _, sub := range p.subs {
		s.Idle += len(sub.idle)
		if sub.failures > 0 && sub.terms == nil && !sub.isClients() {
			failure = fmt.Sprintf("login as %s: %v", sub.role, sub.failure)
		}
	}
	database, retired := p.database, p.retired
	p.mu.Unlock()
	if s.NotReady = p.home.missingSecret(database); s.NotReady == "" {
		s.NotReady = failure
	}
	if s.NotReady == "" && s.Limit == 0 {
		s.NotReady = "this node holds no share of the pool"
	}
	return s, !retired
}

// whenEmpty returns a channel that is closed once no place is taken.
func (p *pool) whenEmpty() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.empty == nil {
		p.empty = make(chan struct{})
		p.freeLocked(0)
	}
	return p.empty
}

// freeLocked gives n places back.
func (p *pool) freeLocked(n int) {
	if p.open -= n; p.open < 0 {
		panic("pooler: a place was freed twice in pool " + p.key)
	}
	if p.open == 0 && p.empty != nil {
		select {
		case <-p.empty:
		default:
			close(p.empty)
		}
	}
	p.checkAwaitedLocked()
}

// closeAll closes the sockets of all connections; nobody waits for them any more.
func (p *pool) closeAll() {
	p.mu.Lock()
	all := maps.Clone(p.conns)
	p.mu.Unlock()
	for c := range all {
		c.wire.Close()
	}
}

// lookAtIdle inspects the idle connections that PostgreSQL has sent something on.
func (p *pool) lookAtIdle() {
	for _, c := range p.idleConns() {
		if !c.wire.Quiet() {
			p.inspectIdle(c)
		}
	}
}

func (p *pool) idleConns() []*ServerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*ServerConn
	for _, sub := range p.subs {
		all = append(all, sub.idle...)
	}
	return all
}

// subLocked returns a part of the pool.
func (p *pool) subLocked(of part) *subpool {
	sub := p.subs[of]
	if sub == nil {
		sub = &subpool{part: of}
		p.subs[of] = sub
	}
	return sub
}

// application is a client program's name and what else its connections report.
type application struct {
	name string
	rest *core.Params
}

// namedFor returns params with an application's name in them.
func (p *pool) namedFor(of part, params *core.Params, name string) *core.Params {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub, key := p.subLocked(of), application{name, params}
	if shared := sub.called[key]; shared != nil {
		return shared
	}
	if sub.called == nil || len(sub.called) >= maxLearned {
		sub.called = map[application]*core.Params{}
	}
	sub.called[key] = params.With("application_name", name)
	return sub.called[key]
}

// loginFailedLocked notes a failed login: the next one waits, longer each time. One that
// was under way when another failed has failed for the same reason, and says nothing new.
func (s *subpool) loginFailedLocked(err error) (wait time.Duration) {
	s.failure = err
	if s.backingOff() {
		return time.Until(s.retryAt)
	}
	s.known = s.known && !s.isClients()
	if wait = firstBackoff; !s.mayPass() {
		wait = min(firstBackoff<<min(s.failures, 10), maxBackoff)
	}
	wait -= rand.N(wait / 4) // so that nodes do not ask in step
	s.failures++
	s.retryAt = time.Now().Add(wait)
	return wait
}

// loggedInLocked notes a login and what the connection reports.
func (s *subpool) loggedInLocked(params *core.Params) {
	s.live++
	s.known = s.terms == nil // else nobody may come again
	s.failures, s.failure, s.retryAt = 0, nil, time.Time{}
	if s.base == nil || !reflect.DeepEqual(s.base, params) {
		s.base, s.learned = params, nil // the server's defaults have changed
	}
}

// mayPass reports whether the waiters of a role whose logins fail go on waiting.
func (s *subpool) mayPass() bool { return backend.Passing(s.failure) }

func (s *subpool) backingOff() bool { return s.failures > 0 && time.Now().Before(s.retryAt) }

// paramsFor returns what a connection of the part reports once the settings in key
// were applied; nil when nobody has tried yet.
func (p *pool) paramsFor(of part, key string) *core.Params {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub := p.subLocked(of)
	if key == "" {
		return sub.base
	}
	return sub.learned[key]
}

// learn remembers what a connection reported after the settings in key were applied.
func (p *pool) learn(c *ServerConn, key string, params *core.Params) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key == "" || c.generation != p.generation || len(c.sub.learned) >= maxLearned {
		return
	}
	if c.sub.learned == nil {
		c.sub.learned = map[string]*core.Params{}
	}
	c.sub.learned[key] = params
}
