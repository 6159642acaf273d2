package pooler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/password"
)

// Pooler lends server connections to sessions. Its methods may be called from any
// goroutine.
type Pooler struct {
	node
	roster    *roster
	keys      *keys
	passwords *password.Checker
	console   *console.Console

	mu     sync.Mutex // guards below; never held while a pool's is
	pools  map[string]*pool
	limits map[string]int
	paused map[string]bool // environments that an operator has paused as a whole
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Pooler, error) {
	if cfg.Secrets == nil || cfg.Driver == nil || cfg.Logger == nil {
		return nil, fmt.Errorf("%w: a pooler needs Secrets, Driver and Logger", armor.ErrInvalid)
	}
	if cfg.Node > armor.MaxNodeIndex {
		return nil, fmt.Errorf("%w: node index %d is above %d", armor.ErrInvalid, cfg.Node, armor.MaxNodeIndex)
	}
	cfg.fill()
	servers, err := backend.New(backend.Config{
		Dial: cfg.Dial, Secrets: cfg.Secrets,
		LoginTimeout: cfg.LoginTimeout, ResetTimeout: cfg.ResetTimeout, EndTimeout: cfg.EndTimeout, VanishedFor: cfg.VanishedFor,
		Register: cfg.Register,
	})
	if err != nil {
		return nil, err
	}
	p := &Pooler{
		node: node{cfg: cfg, servers: servers, errands: newErrands()}, roster: newRoster(), keys: newKeys(cfg.Node, cfg.CancelSigner),
		passwords: password.New(password.Config{
			DecoyKey: cfg.DecoyKey, GuessesPerSecond: cfg.GuessesPerSecond, Patience: cfg.PasswordTimeout,
		}),
		pools: map[string]*pool{}, limits: map[string]int{}, paused: map[string]bool{},
	}
	p.console = console.New(console.Config{
		Node: cfg.Console, Pooler: desk{p}, Logger: cfg.Logger, StartupTimeout: cfg.StartupTimeout, LoginTimeout: cfg.LoginTimeout,
	})
	p.holdBack(cfg.Register.Former())
	return p, nil
}

// Run does the work that no session waits for: logging in, resetting, watching and
// ending server connections. When ctx ends it lends no more, ends what is idle and
// what comes back, and returns once nothing is open, or after ShutdownTimeout with
// all sockets closed. The sessions are the edge's to end before.
func (p *Pooler) Run(ctx context.Context) error {
	inside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { p.errands.run(inside) })
	work.Go(func() { p.watch(inside) })
	work.Go(func() { p.cfg.Register.Run(inside) })
	p.awaitFormer()
	<-ctx.Done()
	for _, pl := range p.allPools() {
		pl.retire()
	}
	p.awaitEnds()
	stop()
	for _, pl := range p.allPools() {
		pl.closeAll()
	}
	work.Wait()
	return nil
}

// awaitEnds waits until no server connection is open any more.
func (p *Pooler) awaitEnds() {
	limit := time.NewTimer(p.cfg.ShutdownTimeout)
	defer limit.Stop()
	for _, pl := range p.allPools() {
		select {
		case <-pl.whenEmpty():
		case <-limit.C:
			return
		}
	}
}

// watch looks at idle server connections: PostgreSQL may have ended them, or it is
// time to.
func (p *Pooler) watch(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Watch)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, pl := range p.allPools() {
				pl.lookAtIdle()
				pl.tend(now)
				pl.sample(now, p.cfg.Watch)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (p *Pooler) allPools() []*pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.pools))
}

// Configure makes the given tables the pools that there are. It is level-triggered:
// it gets all of them each time. Pools that are gone serve nobody and stay in Held
// until their last server connection has ended.
func (p *Pooler) Configure(databases []armor.Database, pools []armor.Pool) {
	byKey := map[string]armor.Database{}
	for _, d := range databases {
		byKey[armor.ObjectKey(d.Environment, d.Name)] = d
	}
	wanted := map[string]bool{}
	for _, cfg := range pools {
		database, ok := byKey[armor.ObjectKey(cfg.Environment, cfg.Database)]
		if !ok {
			continue // the state machine refuses such a pool
		}
		wanted[cfg.Key()] = true
		p.ensure(cfg, database)
	}
	for _, pl := range p.allPools() {
		if !wanted[pl.key] {
			pl.retire()
		}
	}
}

func (p *Pooler) ensure(cfg armor.Pool, database armor.Database) {
	pl, limit := p.findOrMake(cfg.Key())
	before := lookEvery(pl.config())
	pl.configure(cfg, database)
	pl.setLimit(limit)
	if lookEvery(cfg) != before {
		p.tellTimeOuts(pl)
	}
}

func (p *Pooler) findOrMake(key string) (*pool, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl := p.pools[key]
	if pl == nil {
		pl = newPool(key, &p.node)
		pl.switches.paused = p.paused[environmentOf(key)]
		p.pools[key] = pl
	}
	return pl, p.limits[key]
}

// SetLimits says how many server connections this node may have in each pool; a
// pool that is not named may have none. It is authoritative: what is above a limit
// and idle ends now, what is lent ends when it comes back.
func (p *Pooler) SetLimits(limits map[string]int) {
	p.mu.Lock()
	p.limits = maps.Clone(limits)
	p.mu.Unlock()
	for _, pl := range p.allPools() {
		pl.setLimit(limits[pl.key])
	}
}

// SetWithheld says what is withheld of the pools' budgets, for those who wait and for the status.
func (p *Pooler) SetWithheld(all []armor.Withheld) { p.withheld.Store(&all) }

// Held returns, per pool, how many server connections are open or being opened. One
// counts from before it is dialled until its end has been read.
func (p *Pooler) Held() map[string]int {
	held := map[string]int{}
	for _, pl := range p.allPools() {
		if n := pl.held(); n > 0 {
			held[pl.key] = n
		}
	}
	return held
}

// Status returns what there is to say about each configured pool, in the order of
// their keys.
func (p *Pooler) Status() []armor.PoolStatus {
	var all []armor.PoolStatus
	for _, pl := range p.allPools() {
		if s, ok := p.status(pl); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b armor.PoolStatus) int { return strings.Compare(a.Pool, b.Pool) })
	return all
}

// status describes a pool, unless it is retired.
func (p *Pooler) status(pl *pool) (armor.PoolStatus, bool) {
	s, database, serves := pl.status()
	if missing := p.missingSecret(database); missing != "" {
		s.NotReady = missing
	}
	return s, serves
}

// missingSecret says which name of the configuration this node does not have.
func (p *Pooler) missingSecret(d armor.Database) string {
	if d.Verifiers != "" {
		if err := p.checkVerifiers(d.Verifiers); err != nil {
			return fmt.Sprintf("verifiers %s: %v", d.Verifiers, err)
		}
	}
	if err := p.servers.Missing(d); err != nil {
		return err.Error()
	}
	return ""
}

// poolFor returns the pool that a grant leads to, if it takes a new client: none, if it
// leads to the console.
func (p *Pooler) poolFor(a armor.Access, of part) (*pool, *armor.Denial) {
	if armor.IsConsole(a.Database.Name) {
		return nil, nil
	}
	p.mu.Lock()
	pl, ok := p.pools[a.Pool.Key()]
	p.mu.Unlock()
	if !ok || !pl.serves() {
		return nil, &armor.Denial{Reason: armor.ReasonNotReady, Message: fmt.Sprintf("pool %q is not ready on this node", a.Pool.Name)}
	}
	return pl, pl.closedToNew(of)
}
