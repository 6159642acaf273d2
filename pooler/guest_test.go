package pooler_test

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/armordb/armordb/armor"
)

// guest is what the edge would be.
type guest struct {
	home      *house
	stop      context.CancelCauseFunc
	ended     chan struct{} // ServeConn has returned
	confirmed chan struct{}
	address   string // of the client
	stale     atomic.Bool
	atLive    func() // called by Live when set; before the session begins
	leave     func()
	goesOn    bool
	panicked  any // what ServeConn has ended with; read after ended

	mu      sync.Mutex
	cause   error
	driver  func(error, func())
	state   string
	refused []*armor.Denial
	proved  []armor.SecondFactor // as the pooler has told
}

func (g *guest) Peer() armor.Peer {
	return armor.Peer{Source: netip.MustParseAddrPort("127.0.0.1:1"), Leaf: armor.Certificate{Identity: g.home.identityOf(g.address)}}
}

func (g *guest) Admit(database, role string, replication armor.Replication) (armor.Access, error) {
	if armor.IsConsole(database) {
		return armor.Access{Environment: "production", Database: armor.Database{Name: database, Environment: "production"}}, nil
	}
	if replication != armor.NoReplication && !g.home.replication {
		return armor.Access{}, (&armor.Denial{Reason: armor.ReasonReplication, Message: "may not replicate"}).WithID("abc")
	}
	if replication == armor.PhysicalReplication && database == armor.UnnamedDatabase {
		database = "orders" // it is the only one
	}
	leads := g.home.database
	if armor.IsTemplate(leads.Name) {
		leads.DBName = database
	} else if database != "orders" {
		return armor.Access{},
			(&armor.Denial{Reason: armor.ReasonDatabase, Message: "may not reach database " + strconv.Quote(database)}).WithID("abc")
	}
	return armor.Access{Environment: "production", Database: leads, Pool: g.home.pool,
		SecondFactor: g.home.factor, Name: g.home.identity.Name, MaxConnections: g.home.identity.MaxConnections}, nil
}

// EndPoint is what tlsedge.Session's is.
func (g *guest) EndPoint() []byte {
	if g.home.tls == nil {
		return nil
	}
	sum := sha256.Sum256(g.home.tls.TLS.Certificate[0])
	return sum[:]
}

func (g *guest) GoOn() (end func(panicked any)) {
	g.goesOn = true
	return func(panicked any) {
		g.panicked = panicked
		g.leave()
	}
}

func (g *guest) Proved(factor armor.SecondFactor) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.proved = append(g.proved, factor)
	return g.cause
}

var errStale = &armor.Denial{Reason: armor.ReasonStale, Message: "stale"}

func (g *guest) Live() error {
	if g.atLive != nil {
		g.atLive()
	}
	if g.stale.Load() {
		return errStale
	}
	return nil
}

func (g *guest) Moment() armor.Moment { return armor.Moment{} }

func (g *guest) LiveAt(armor.Moment) error { return g.Live() }

func (g *guest) HandOver(cut func(error, func())) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cause != nil {
		return g.cause
	}
	g.driver = cut
	return nil
}

func (g *guest) Cancel(ctx context.Context, key armor.CancelKey) { g.home.Cancel(ctx, key, false) }

func (g *guest) Refuse(d *armor.Denial) *armor.Denial {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = append(g.refused, d)
	return d.WithID("r" + strconv.Itoa(len(g.refused)))
}

func (g *guest) SetState(state string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = state
}

// cut ends the session as the edge does.
func (g *guest) cut(cause error) {
	g.mu.Lock()
	first, driver := g.cause == nil, g.driver
	if first {
		g.cause = cause
	}
	g.mu.Unlock()
	if !first {
		return
	}
	if driver != nil {
		driver(cause, func() { close(g.confirmed) })
		return
	}
	close(g.confirmed)
	g.stop(cause)
}
