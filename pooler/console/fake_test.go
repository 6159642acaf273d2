package console

import (
	"bytes"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgtest"
	"github.com/armordb/armordb/pooler/pgwire"
)

// fake is a pooler whose pools do as they are told and no more.
type fake struct {
	mu      sync.Mutex // guards below
	tallies []Tally
	paused  map[string]bool // environments
	pools   []*fakePool
	killed  []uint64
}

func (f *fake) Tally() []Tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Tally{}, f.tallies...)
}

func (f *fake) Clients(environment string) []Socket {
	return []Socket{{ID: 9, Database: environment, State: Waiting, Wait: time.Second}, {ID: 7, Database: environment, State: Idle}}
}

func (f *fake) Servers(environment string) []Socket {
	return []Socket{{ID: 8, Database: environment, State: Idle}}
}

func (f *fake) Count() int { return 3 }

func (f *fake) Pools() []Pool {
	var all []Pool
	for _, p := range f.pools {
		all = append(all, p)
	}
	return all
}

func (f *fake) PauseAll(environment string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.paused[environment]
	f.paused[environment] = true
	return !before
}

func (f *fake) DissolvePause(environment string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.paused[environment]
	delete(f.paused, environment)
	return before
}

func (f *fake) AllPaused(environment string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paused[environment]
}

func (f *fake) Kill(_ string, id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.killed = append(f.killed, id)
	return id == 7
}

func (f *fake) KillOthers(uint64)     {}
func (f *fake) CloseDoor(then func()) { then() }

// fakePool notes what it has obeyed.
type fakePool struct {
	cfg    armor.Pool
	closed chan struct{} // no server connection is open
	mu     sync.Mutex    // guards below
	obeyed []armor.PoolVerb
}

func (p *fakePool) Config() armor.Pool { return p.cfg }

func (p *fakePool) Paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.obeyed) > 0 && p.obeyed[len(p.obeyed)-1] == armor.PausePool
}

func (p *fakePool) Obey(verb armor.PoolVerb) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.obeyed = append(p.obeyed, verb)
}

func (p *fakePool) has(verbs ...armor.PoolVerb) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.obeyed) != len(verbs) {
		return false
	}
	for i, v := range verbs {
		if p.obeyed[i] != v {
			return false
		}
	}
	return true
}

func (p *fakePool) RetryLogins()                     {}
func (p *fakePool) WhenPaused() <-chan struct{}      { return p.closed }
func (p *fakePool) WhenReconnected() <-chan struct{} { return p.closed }

// fakeSession is what the edge and the pooler would be.
type fakeSession struct {
	mu     sync.Mutex // guards below
	cause  error      // Live's
	cut    func(error, func())
	drain  func(*pgwire.Error)
	cancel func()
}

func (f *fakeSession) Peer() armor.Peer { return armor.Peer{} }

func (f *fakeSession) Live() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

func (f *fakeSession) HandOver(cut func(error, func())) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = cut
	return nil
}

func (f *fakeSession) OnDrain(drain func(*pgwire.Error)) { f.drain = drain }
func (f *fakeSession) OnCancel(cancel func())            { f.cancel = cancel }

func (f *fakeSession) CutError(cause error) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: "57P01", Message: cause.Error()}
}

// pools are two of one database in production, and one in staging.
func pools() []*fakePool {
	of := func(environment, name string) *fakePool {
		closed := make(chan struct{})
		close(closed)
		return &fakePool{cfg: armor.Pool{Environment: environment, Name: name, Database: "orders", Mode: armor.TransactionMode}, closed: closed}
	}
	return []*fakePool{of("production", "orders"), of("production", "reports"), of("staging", "orders")}
}

// tallies are those of pools.
func tallies() []Tally {
	var all []Tally
	for _, p := range pools() {
		all = append(all, Tally{
			Config:   p.cfg,
			Database: armor.Database{Name: "orders", Environment: p.cfg.Environment, Hosts: []string{"pg1:5433", "pg2:5433"}},
			Status:   armor.PoolStatus{Pool: p.cfg.Key(), Limit: 5, Open: 2, Idle: 1},
			Totals:   Totals{Counts: core.Counts{Transactions: 7}, Lent: time.Second},
			Roles:    []RoleTally{{Database: "orders", Role: "rw", ClientsActive: 3, Active: 1, Idle: 1, MaxWait: time.Second}},
		})
	}
	return all
}

func newFake() *fake { return &fake{tallies: tallies(), paused: map[string]bool{}, pools: pools()} }

func newConsole(f *fake) *Console {
	return New(Config{Node: Node{Version: "test", MaxClients: 10}, Pooler: f, Logger: slog.New(slog.DiscardHandler)})
}

// visit has a client of production served; ended is closed when Serve has returned.
func visit(t *testing.T, c *Console, role string) (client *pgtest.Client, s *fakeSession, ended <-chan struct{}) {
	t.Helper()
	near, far := pgtest.Pipe(1 << 20)
	s = &fakeSession{}
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.Serve(Visitor{Session: s, Conn: far, ID: 7, Environment: "production", Role: role})
	}()
	t.Cleanup(func() { near.Close(); <-over })
	if err := near.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &pgtest.Client{Conn: net.Conn(near)}, s, over
}

// script is a connection that a client's bytes come from.
type script struct {
	*bytes.Reader
	net.Conn
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)         { return s.Reader.Read(b) }
func (s *script) Write(b []byte) (int, error)        { return s.out.Write(b) }
func (s *script) Close() error                       { return nil }
func (s *script) SetReadDeadline(_ time.Time) error  { return nil }
func (s *script) SetWriteDeadline(_ time.Time) error { return nil }
