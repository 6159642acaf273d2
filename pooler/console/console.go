package console

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Node is what the console tells of its node, and how it ends it.
type Node struct {
	Version    string // of Armor
	MaxClients int    // client connections that the node takes
	// Shutdown has the node end as by a signal: sessions end at their next idle
	// boundary. It must not block. Nil: the console cannot.
	Shutdown func()
	// Announce has the node say that it is not ready, and calls then once whoever sends
	// clients there has had time to notice. Nil: it is called at once.
	Announce func(then func())
	// Hurry has the end that Shutdown asks for take no such time. Nil: it takes none.
	Hurry func()
}

// Config is what a Console needs.
type Config struct {
	Node
	Pooler Pooler
	Logger *slog.Logger
	// StartupTimeout and LoginTimeout bound a client's login and one to PostgreSQL. They are
	// shown only.
	StartupTimeout, LoginTimeout time.Duration
}

// Pooler is what the console is about. Its methods may be called from any goroutine.
type Pooler interface {
	Books
	Levers
}

// Books are what the console shows.
type Books interface {
	// Tally returns what is known of each pool that is served, in the order of their keys.
	Tally() []Tally
	// Clients returns the sessions of an environment, those at the console included.
	Clients(environment string) []Socket
	// Servers returns the server connections of an environment's pools.
	Servers(environment string) []Socket
	// Count is how many sessions there are, of all environments.
	Count() int
}

// Levers are what the console moves. Nothing of it is replicated.
type Levers interface {
	// Pools returns the pools that are served, of all environments.
	Pools() []Pool

	// PauseAll has an environment paused as a whole: its pools, and those to come. The pools
	// there are have to be paused besides. It reports false if that was done before.
	PauseAll(environment string) bool
	// DissolvePause makes such a pause one of each of its pools. It reports false if there is
	// none.
	DissolvePause(environment string) bool
	// AllPaused reports whether there is such a pause.
	AllPaused(environment string) bool

	// Kill ends one session of an environment, and reports whether there is one with that id.
	Kill(environment string, id uint64) bool
	// KillOthers ends every session but one, as the node does when it shuts down.
	KillOthers(than uint64)
	// CloseDoor takes no new clients any more, and calls then once, when the last has left
	// that is not at the console.
	CloseDoor(then func())
}

// Pool is one pool as commands move it.
type Pool interface {
	// Config is the pool as it is configured now.
	Config() armor.Pool
	// Paused reports whether an operator has paused it.
	Paused() bool
	// Obey does what an operator orders, and waits for nothing.
	Obey(verb armor.PoolVerb)
	// RetryLogins forgets that logins have failed: the next one is tried at once.
	RetryLogins()
	// WhenPaused is closed once no server connection is open, or the pool was resumed.
	WhenPaused() <-chan struct{}
	// WhenReconnected is closed once every server connection has ended that may not be lent
	// again.
	WhenReconnected() <-chan struct{}
}

// Visitor is a client of the console that has logged in.
type Visitor struct {
	Session
	Conn        net.Conn
	ID          uint64            // as Clients and Kill have it
	Environment string            // that it belongs to: it sees and moves no other
	Role        string            // says what it may do
	Settings    map[string]string // of its startup packet
}

// Session is what ends a visitor's session, and interrupts it. What it is given to call is
// called from any goroutine.
type Session interface {
	// Peer is who the client proved to be.
	Peer() armor.Peer
	// Live is asked before bytes are written: nil, or the cause with which the session ends.
	Live() error
	// HandOver gives the session's end away: cut is called at most once, and calls confirm once
	// no further byte will be written. The error is the cause, if the session has ended already.
	HandOver(cut func(cause error, confirm func())) error
	// OnDrain registers what is called when the session is to end at its next idle boundary.
	OnDrain(drain func(*pgwire.Error))
	// OnCancel registers what a cancel request does.
	OnCancel(cancel func())
	// CutError is what the client is told about a cause.
	CutError(cause error) *pgwire.Error
}

// Console serves the clients of an admin console. Its methods may be called from any
// goroutine.
type Console struct {
	cfg Config

	mu       sync.Mutex     // guards below
	visitors map[string]int // at the console now, by environment
}

// New returns a Console.
func New(cfg Config) *Console { return &Console{cfg: cfg, visitors: map[string]int{}} }

// Serve serves a client until it leaves or its session is ended, and closes its
// connection.
func (c *Console) Serve(v Visitor) {
	c.count(v.Environment, 1)
	defer c.count(v.Environment, -1)
	newSession(c, v).run()
}

func (c *Console) count(environment string, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.visitors[environment] += by; c.visitors[environment] == 0 {
		delete(c.visitors, environment)
	}
}

// visitorsOf is how many clients of an environment are at the console.
func (c *Console) visitorsOf(environment string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.visitors[environment]
}

// compatible is the version of PgBouncer whose commands and columns the console has.
const compatible = "1.25.2"

// Parameters are what PgBouncer reports to a client at its login, and the client's own
// name.
func Parameters(application string) map[string]string {
	return map[string]string{
		"server_version": compatible + "/bouncer", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "GMT",
		"standard_conforming_strings": "on", "is_superuser": "on", "integer_datetimes": "on", "application_name": application,
	}
}
