package pooler

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/password"
)

// Secrets resolves the names of the replicated configuration on this node. Calls may
// read files.
type Secrets interface {
	backend.Secrets
	// Verifiers returns the SCRAM verifiers by role, as in pg_authid.rolpassword.
	Verifiers(name armor.SecretName) (map[string]string, error)
}

// Config is what a Pooler needs. Secrets, Driver and Logger are required; a zero
// duration or number means its default.
type Config struct {
	Node    uint16 // this member's index, for cancel keys
	Secrets Secrets
	Driver  Driver
	Logger  *slog.Logger
	Hooks   Hooks
	Dial    backend.Dial // nil: backend.DefaultDialer's
	// Cancel carries a cancel request that came over TLS to the session that holds the
	// key, on whatever node. Nil: to this node's sessions.
	Cancel func(ctx context.Context, key armor.CancelKey, source netip.AddrPort)
	// CancelTLSOnly says whether an environment refuses cancel requests that come without
	// TLS. It must not block. Nil: none does.
	CancelTLSOnly func(environment string) bool
	// CancelSigner is a secret that all nodes share: it proves that one of them has made a
	// cancel key of protocol 3.2. Nil: one that this process makes up.
	CancelSigner []byte

	Console console.Node

	// DecoyKey is a secret that all nodes share. It makes the verifiers of roles that have
	// none look alike everywhere. Nil: one that this process makes up.
	DecoyKey []byte

	StartupTimeout   time.Duration // from a proven client to its whole startup packet; default 10 s
	PasswordTimeout  time.Duration // from asking for a password to its proof; default 10 s
	LoginTimeout     time.Duration // one login to PostgreSQL, dialling included; default 15 s
	LookupTimeout    time.Duration // the query for a client's verifier, once it has a server connection; default 5 s
	ResetTimeout     time.Duration // DISCARD ALL between two clients; default 5 s
	EndTimeout       time.Duration // one attempt to end a server connection; default 5 s
	VanishedFor      time.Duration // how long a connection that broke without an end keeps its place; default 40 s
	ShutdownTimeout  time.Duration // how long Run waits for server connections to end; default 10 s
	AutoIdle         time.Duration // after which a database of the template that nobody uses is forgotten; default 1 h
	Watch            time.Duration // how often idle server connections are looked at; default 250 ms
	CancelsPerSecond float64       // cancel requests of one session; default 10, in bursts of twice as many
	GuessesPerSecond float64       // failed passwords of one identity at one source; default 1, in bursts of ten times as many
	StatementMemory  int           // bytes of prepared statements of one session; default 8 MiB
}

// Hooks tell what happens, for metrics. Each may be nil, is called from many
// goroutines and must not block.
type Hooks struct {
	// QueryWait is asked once for each pool; what it returns is called whenever a client
	// got its server connection.
	QueryWait   func(pool string) func(took time.Duration)
	ServerLogin func(pool string, took time.Duration, e error) // a login to PostgreSQL ended
	ServerEnd   func(pool string)                              // the end of a server connection was read
	Password    func(result string)                            // a client was asked for its password: "ok", the reason of its refusal, or "abandoned"
	Lookup      func(result string)                            // PostgreSQL was asked for a verifier: "found", "none", "unfit" or "failed"
	Canceled    func(pool string)                              // a cancel request was carried out
}

// Guest is a client as the edge vouches for it.
type Guest interface {
	// Peer is who the client proved to be.
	Peer() armor.Peer
	// Admit asks for what the startup packet wants; from then on every revision judges
	// the session by it. The error is a *armor.Denial.
	Admit(database, role string, replication armor.Replication) (armor.Access, error)
	// EndPoint is the channel binding tls-server-end-point (RFC 5929) of the client's
	// connection; nil when its server certificate has none.
	EndPoint() []byte
	// Proved ends the login: factor is what was proved of what Access asks for. The error
	// is the cause, if the session has ended or more was to be proved.
	Proved(factor armor.SecondFactor) error
	// Live is asked before bytes are forwarded: nil, or the cause with which the session
	// is cut.
	Live() error
	// Moment and LiveAt are Live in two steps, for a driver that looks at the clocks once
	// for a batch of sessions: after it has waited, before it forwards anything.
	Moment() armor.Moment
	LiveAt(m armor.Moment) error
	// HandOver gives the session's end to the driver: cut is called at most once, from
	// any goroutine, must not block, and the driver calls confirm once no further byte
	// will be forwarded. It returns the cause if the session has already ended.
	HandOver(cut func(cause error, confirm func())) error
	// GoOn lets the session live on when ServeConn returns: it ends when end is called,
	// once, from any goroutine. panicked is what it has ended with, or nil.
	GoOn() (end func(panicked any))
	// Refuse records a denial made by the pooler and returns it with its id.
	Refuse(d *armor.Denial) *armor.Denial
	// SetState is for `armorctl session list`.
	SetState(state string)
}

// Pooler lends server connections to sessions. Its methods may be called from any
// goroutine.
type Pooler struct {
	node
	keys      *keys
	passwords *password.Checker
	console   *console.Console

	mu       sync.Mutex // guards below; never held while a pool's is
	pools    map[string]*pool
	limits   map[string]int
	paused   map[string]bool // environments that an operator has paused as a whole
	clients  map[*client]struct{}
	crowd    crowd
	draining bool
	drained  chan struct{} // closed when the last client has gone; nil until Drain
	leaving  func()        // called when the last one has gone that is not at the console; nil until closeDoor
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Pooler, error) {
	if cfg.Secrets == nil || cfg.Driver == nil || cfg.Logger == nil {
		return nil, fmt.Errorf("%w: a pooler needs Secrets, Driver and Logger", armor.ErrInvalid)
	}
	if cfg.Node > armor.MaxNodeIndex {
		return nil, fmt.Errorf("%w: node index %d is above %d", armor.ErrInvalid, cfg.Node, armor.MaxNodeIndex)
	}
	if cfg.Dial == nil {
		cfg.Dial = backend.DefaultDialer.DialContext
	}
	fill(&cfg.StartupTimeout, 10*time.Second)
	fill(&cfg.PasswordTimeout, 10*time.Second)
	fill(&cfg.LoginTimeout, 15*time.Second)
	fill(&cfg.LookupTimeout, 5*time.Second)
	fill(&cfg.ResetTimeout, 5*time.Second)
	fill(&cfg.EndTimeout, 5*time.Second)
	fill(&cfg.VanishedFor, backend.FencedAfter)
	fill(&cfg.ShutdownTimeout, 10*time.Second)
	fill(&cfg.AutoIdle, time.Hour) // PgBouncer's autodb_idle_timeout
	fill(&cfg.Watch, 250*time.Millisecond)
	fill(&cfg.CancelsPerSecond, 10)
	fill(&cfg.GuessesPerSecond, 1)
	fill(&cfg.StatementMemory, 8<<20)
	for _, key := range []*[]byte{&cfg.DecoyKey, &cfg.CancelSigner} {
		if *key == nil {
			*key = []byte(rand.Text())
		}
	}
	if cfg.CancelTLSOnly == nil {
		cfg.CancelTLSOnly = func(string) bool { return false }
	}
	servers, err := backend.New(backend.Config{
		Dial: cfg.Dial, Secrets: cfg.Secrets,
		LoginTimeout: cfg.LoginTimeout, ResetTimeout: cfg.ResetTimeout, EndTimeout: cfg.EndTimeout, VanishedFor: cfg.VanishedFor,
	})
	if err != nil {
		return nil, err
	}
	p := &Pooler{
		node: node{cfg: cfg, servers: servers, errands: newErrands()}, keys: newKeys(),
		passwords: password.New(password.Config{DecoyKey: cfg.DecoyKey, GuessesPerSecond: cfg.GuessesPerSecond, Patience: cfg.PasswordTimeout}),
		pools:     map[string]*pool{}, limits: map[string]int{}, paused: map[string]bool{}, clients: map[*client]struct{}{}, crowd: crowd{},
	}
	p.console = console.New(console.Config{
		Node: cfg.Console, Pooler: desk{p}, Logger: cfg.Logger, StartupTimeout: cfg.StartupTimeout, LoginTimeout: cfg.LoginTimeout,
	})
	if cfg.Cancel == nil {
		p.cfg.Cancel = func(ctx context.Context, key armor.CancelKey, _ netip.AddrPort) { p.Cancel(ctx, key, false) }
	}
	return p, nil
}

func fill[T int | float64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
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
