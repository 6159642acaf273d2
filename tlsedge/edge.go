package tlsedge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
)

// Lease says whether this node may rely on the trust state it has. Calls must not
// block; KeepLiveAt is called for every batch of bytes.
type Lease interface {
	// AdmitNew returns nil while a new session of the environment may begin.
	AdmitNew(environment string) error
	// Moment reads the clocks that the lease is measured on.
	Moment() armor.Moment
	// KeepLiveAt returns nil if live sessions of the environment may go on at a moment
	// that has just been read.
	KeepLiveAt(environment string, m armor.Moment) error
	// Now is the clock by which certificates' validity is judged.
	Now() time.Time
}

// Handler serves an authenticated connection. ServeConn returns when the session
// has ended; the edge then closes c, should it still be open. ctx ends, with the
// cause, when the session is cut before it was handed over to a driver.
type Handler interface {
	ServeConn(ctx context.Context, c net.Conn, s *Session) // see Session.GoOn
}

// Canceler carries a cancel request to the session that holds the key, wherever it
// lives. It returns once the request was delivered or found to be nobody's.
type Canceler interface {
	// Cancel takes the key, and the address that the request came from; plaintext says that
	// nobody has proved anything for it.
	Cancel(ctx context.Context, key armor.CancelKey, source netip.AddrPort, plaintext bool)
}

// Reporter is told once every session here conforms to a revision.
type Reporter interface {
	// Enforced says that no further byte is forwarded for any session that the
	// revision denies; closed is how many were cut for it.
	Enforced(revision uint64, closed int)
}

// Config is what an Edge needs. Node, Listener, Trust, Lease, Handler, Canceler,
// Reporter, Certificate and Logger are required; a zero number means its default.
type Config struct {
	Node     armor.NodeID
	Listener net.Listener // closed by Run
	Trust    armor.Trust
	Lease    Lease
	Handler  Handler
	Canceler Canceler
	Reporter Reporter
	// Certificate returns the server certificate in force. It is asked at every
	// handshake, so that a renewed one is used at once, and must not block.
	Certificate func() (*tls.Certificate, error)
	Logger      *slog.Logger

	// Environments, when set, are the only ones served here: the anchors of others
	// are not offered, and their clients fail the handshake.
	Environments []string
	// ProxyFrom are the load balancers that say by the PROXY protocol whom they speak for.
	// They must; nobody else may.
	ProxyFrom []netip.Prefix
	// Wrap, when set, makes the connection that TLS runs on. It gets one that
	// implements syscall.Conn if the accepted one does, and its result is what
	// (*tls.Conn).NetConn returns later.
	Wrap func(net.Conn) net.Conn
	// Hooks are optional.
	Hooks Hooks

	MaxSessions            int           // connections whose client is proven; default 10,000
	MaxHandshakes          int           // connections whose client is not yet proven; default 1,024
	MaxHandshakesPerSource int           // of one address, or one /64 of IPv6; default 512
	MaxHandshakesKnown     int           // places apart for sources that have proved a client before; default 512
	FirstByte              time.Duration // how long a connection may say nothing; default 1 s
	CancelsPerSecond       float64       // cancel requests of one source; default 50, in bursts of twice as many; of all, four times that
	HandshakeTimeout       time.Duration // from accept to proof of possession; default 10 s
	Sweep                  time.Duration // how often expiry and freshness are looked at; default 200 ms
	Grace                  time.Duration // how long sessions may go on once Run's ctx has ended; default none

	mistakes door.Mistakes // planted by tests
}

// The results of a cancel request.
const (
	CancelCarried = "carried" // to the session that holds the key, if there is one
	CancelRefused = "refused" // its sender would be refused a session
	CancelLimited = "limited" // too many of them
)

// Outcome is how the time from accept to proof of possession ended.
type Outcome string

const (
	OutcomeProven    Outcome = "proven"    // the client holds its certificate's key
	OutcomeCancel    Outcome = "cancel"    // a plaintext cancel request
	OutcomePlaintext Outcome = "plaintext" // told to use TLS
	OutcomeProbe     Outcome = "probe"     // connected and left without a word
	OutcomeGarbage   Outcome = "garbage"   // not PostgreSQL's protocol
	OutcomeProxy     Outcome = "proxy"     // a load balancer that does not say whom it speaks for
	OutcomeTimeout   Outcome = "timeout"   // no proof came in time
	OutcomeAlert     Outcome = "alert"     // TLS failed: no certificate, an unknown CA, …
	OutcomeLimited   Outcome = "limited"   // too many sessions or cancels
	OutcomeEvicted   Outcome = "evicted"   // it made room for another: too many that are not proven
)

// Hooks tell what happens, for metrics. Each may be nil, is called from many
// goroutines and must not block.
type Hooks struct {
	Handshake func(outcome Outcome, took time.Duration)
	Denied    func(reason armor.Reason)                             // a client was refused
	Cut       func(reason armor.Reason)                             // a session was ended by us
	Enforced  func(revision uint64, closed int, took time.Duration) // since the state was seen
	Cancel    func(result string)                                   // a cancel request came, with TLS or without
	Panicked  func()                                                // a session ended by a panic: always a bug
}

// Edge is the client listener of one node.
type Edge struct {
	cfg      Config
	serving  map[string]bool // Config.Environments; nil: all
	door     *door.Door      // who is not proven
	open     atomic.Int64    // proven clients, until their connections are closed
	cancels  *cancels
	registry *registry
	denials  *denials
	uses     *uses
	unproven *unproven
	failures *rate.Limiter // of log lines about strangers

	closing atomic.Bool
	nextID  atomic.Uint64
	conns   sync.WaitGroup

	termsMu sync.Mutex // guards terms; held while anchors are parsed
	terms   *terms

	// beforeCut runs between seeing a state and cutting; see mutant_on.go.
	beforeCut func(ctx context.Context, e *Edge, s *armor.State)
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Edge, error) {
	if missing := missingOf(cfg); missing != nil {
		return nil, fmt.Errorf("%w: the edge needs %s", armor.ErrInvalid, strings.Join(missing, ", "))
	}
	fill(&cfg.MaxSessions, 10_000)
	fill(&cfg.MaxHandshakes, 1024)
	fill(&cfg.MaxHandshakesPerSource, 512)
	fill(&cfg.MaxHandshakesKnown, 512)
	fill(&cfg.FirstByte, time.Second)
	fill(&cfg.CancelsPerSecond, 50)
	fill(&cfg.HandshakeTimeout, 10*time.Second)
	fill(&cfg.Sweep, 200*time.Millisecond)
	if cfg.Wrap == nil {
		cfg.Wrap = func(c net.Conn) net.Conn { return c }
	}
	e := &Edge{
		cfg: cfg,
		door: door.New(door.Config{
			Unproven: cfg.MaxHandshakes, PerSource: cfg.MaxHandshakesPerSource, Reserve: cfg.MaxHandshakesKnown, FirstByte: cfg.FirstByte,
			Mistakes: cfg.mistakes,
		}),
		cancels:   newCancels(cfg.CancelsPerSecond),
		registry:  newRegistry(),
		denials:   newDenials(cfg.Node),
		uses:      newUses(),
		unproven:  newUnproven(),
		failures:  rate.NewLimiter(10, 100),
		beforeCut: mutantBeforeCut,
	}
	if len(cfg.Environments) > 0 {
		e.serving = map[string]bool{}
		for _, name := range cfg.Environments {
			e.serving[name] = true
		}
	}
	return e, nil
}

func missingOf(cfg Config) []string {
	var missing []string
	for name, absent := range map[string]bool{
		"Node": cfg.Node == "", "Listener": cfg.Listener == nil, "Trust": cfg.Trust == nil, "Lease": cfg.Lease == nil,
		"Handler": cfg.Handler == nil, "Canceler": cfg.Canceler == nil, "Reporter": cfg.Reporter == nil,
		"Certificate": cfg.Certificate == nil, "Logger": cfg.Logger == nil,
	} {
		if absent {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

func fill[T int | float64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// serves reports whether clients of the environment are welcome on this listener.
func (e *Edge) serves(environment string) bool { return e.serving == nil || e.serving[environment] }

// Run accepts and serves connections until ctx ends, then stops accepting, serves those
// that are in their handshake or login as any other, gives live sessions Config.Grace,
// cuts what is left, and returns once all have ended.
// Revocation, expiry and freshness are enforced until the last of them has. The
// error is nil unless accepting failed for good.
func (e *Edge) Run(ctx context.Context) error {
	inside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var watch sync.WaitGroup
	watch.Go(func() { e.enforce(inside) })
	watch.Go(func() { e.sweep(inside) })

	accepting, stopAccepting := context.WithCancel(ctx)
	defer stopAccepting()
	closed := context.AfterFunc(accepting, func() { e.cfg.Listener.Close() })
	err := e.accept(accepting, inside)
	if closed() {
		e.cfg.Listener.Close()
	}
	stopAccepting()
	e.finish(inside)
	stop()
	watch.Wait()
	return err
}

// finish waits for every connection to end, and cuts those that do not in time.
func (e *Edge) finish(ctx context.Context) {
	ended := make(chan struct{})
	go func() { e.conns.Wait(); close(ended) }()
	grace := time.NewTimer(e.cfg.Grace)
	defer grace.Stop()
	select {
	case <-ended:
		return
	case <-grace.C:
	}
	e.closing.Store(true)
	for again := time.NewTicker(e.cfg.Sweep); ; {
		for _, s := range e.registry.all() {
			s.cut(armor.ShutdownDenial(), 0)
		}
		select {
		case <-ended:
			again.Stop()
			return
		case <-again.C: // a handshake that was under way has become a session
		}
	}
}

// accept takes connections until ctx ends; inside is the ctx of the sessions.
func (e *Edge) accept(ctx, inside context.Context) error {
	pause := time.Duration(0)
	for {
		conn, err := e.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept clients: %w", err)
		case err != nil: // out of file descriptors, most likely: it passes
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.cfg.Logger.Warn("accepting clients failed", armor.KeyErr, err, armor.KeyTook, pause)
			sleep(ctx, pause)
		default:
			pause = 0
			e.take(ctx, inside, conn)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take gives a connection its place at the door, and only then spends a goroutine. It
// never waits: when there are too many, another goes.
func (e *Edge) take(ctx, inside context.Context, conn net.Conn) {
	if e.open.Load() >= int64(e.cfg.MaxSessions) {
		door.Drop(conn)
		e.outcome(OutcomeLimited, time.Now())
		return
	}
	source := door.AddressOf(conn).Addr()
	if e.balancer(source) {
		source = netip.Addr{} // the balancer will say whose it is: see Place.Move
	}
	place := e.door.Enter(source, conn)
	if place == nil {
		e.outcome(OutcomeLimited, time.Now())
		return
	}
	e.conns.Add(1)
	go e.serve(ctx, inside, conn, place)
}

// serve is one connection's life, or its beginning: a session may go on without a
// goroutine of its own. accepting ends when the edge takes no new clients any more;
// inside, when it has stopped altogether.
func (e *Edge) serve(accepting, inside context.Context, conn net.Conn, place *door.Place) {
	leave := func() {
		conn.Close()
		e.conns.Done()
	}
	proven := false // once true, the session leaves
	defer func() {
		if !proven {
			place.Leave()
			leave()
		}
	}()
	defer e.recovered(conn)
	client, ok := e.prove(accepting, conn, place)
	if !ok {
		return
	}
	proven = true
	e.run(inside, client, func() {
		leave()
		e.open.Add(-1)
	})
}

// recovered lets a panic end one session and no more.
func (e *Edge) recovered(conn net.Conn) {
	if cause := recover(); cause != nil {
		e.panicked(cause, conn)
	}
}

func (e *Edge) panicked(cause any, conn net.Conn) {
	e.cfg.Logger.Error("session panicked", armor.KeyCause, cause, armor.KeySource, conn.RemoteAddr(), "stack", string(debug.Stack()))
	call(e.cfg.Hooks.Panicked)
}

func call(hook func()) {
	if hook != nil {
		hook()
	}
}

func (e *Edge) outcome(o Outcome, since time.Time) {
	if e.cfg.Hooks.Handshake != nil {
		e.cfg.Hooks.Handshake(o, time.Since(since))
	}
}

// Sessions returns the live sessions, in the order in which they began.
func (e *Edge) Sessions() []armor.SessionInfo {
	all := e.registry.all()
	infos := make([]armor.SessionInfo, len(all))
	for i, s := range all {
		infos[i] = s.info()
	}
	slices.SortFunc(infos, func(a, b armor.SessionInfo) int { return int(a.ID) - int(b.ID) })
	return infos
}

// Count returns the number of live sessions.
func (e *Edge) Count() int { return e.registry.count() }

// Unproven is what the door has seen of connections whose client is not proven.
func (e *Edge) Unproven() door.Counts { return e.door.Counts() }

// Denial returns what is remembered of a refusal: the latest 4,096 are.
func (e *Edge) Denial(id string) (armor.DenialRecord, bool) { return e.denials.get(id) }
