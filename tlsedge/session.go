package tlsedge

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Session is one client, from proof of possession to its end.
//
//	handshaken ──Admit──▶ admitted ──HandOver──▶ live
//	     │                    │                    │
//	     └──── refused or cut before HandOver ─────┴── cut: the driver confirms
//
// Whoever finds first that it must end stores the cause; that is the one step that
// decides, and it is never undone. Before HandOver nothing was forwarded and
// nothing will be, since HandOver then fails: the cut is in force at once. After
// it, it is in force when the driver confirms.
//
// All methods may be called from any goroutine.
type Session struct {
	edge  *Edge
	id    uint64
	since time.Time
	peer  armor.Peer
	until time.Time // when the certificate, or the last chain to an anchor, expires
	conn  net.Conn  // below TLS; for deadlines and, at last, for closing
	stop  context.CancelCauseFunc

	served *tls.Certificate // what the client was shown

	left   func() // ends the session, once
	goesOn bool   // when the Handler returns; set and read by its goroutine

	cause     atomic.Pointer[armor.Denial]
	confirmed chan struct{} // closed when no further byte will be forwarded
	once      sync.Once     // closes confirmed

	mu          sync.Mutex // guards below; nothing is called while held
	environment string     // set before the Handler sees the session
	asked       asked
	granted     *granted // nil until admitted
	driver      func(cause error, confirm func())
	told        time.Time // when driver or ctx were told of the cause
	state       string
}

// asked is what a session is judged by beside its peer: armor.Facts without it.
type asked struct {
	database, role string
	replication    armor.Replication
	loggedIn       bool
	factor         armor.SecondFactor
	verifiers      string // armor.Database.VerifiedBy
}

// granted is what is kept of armor.Access: there are many sessions.
type granted struct {
	environment, pool string // the pool's
	factor            armor.SecondFactor
	verifiers         string
	use               *use // by which anchor it was let in
}

// demands is what must be proved beside the key.
func (g *granted) demands() armor.SecondFactor {
	if g == nil {
		return ""
	}
	return g.factor
}

// The words of SessionInfo.State that the edge itself uses.
const (
	stateHandshake = "handshake"
	stateLogin     = "login"
)

func (e *Edge) newSession(peer armor.Peer, under net.Conn, stop context.CancelCauseFunc) *Session {
	return &Session{
		edge: e, id: e.nextID.Add(1), since: time.Now(), peer: peer, until: proofEnds(peer),
		conn: under, stop: stop, confirmed: make(chan struct{}), state: stateHandshake,
	}
}

// proofEnds is the first instant at which time alone could change the verdict: the
// leaf's expiry, or that of any issuer.
func proofEnds(p armor.Peer) time.Time {
	end := p.Leaf.NotAfter
	for _, chain := range p.Chains {
		for _, c := range chain {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
	}
	return end
}

// run is a proven client's session: registered first, checked second, so that no
// revocation slips between; then served.
func (e *Edge) run(ctx context.Context, c client, leave func()) {
	ctx, stop := context.WithCancelCause(ctx)
	s := e.newSession(c.peer, c.conn.NetConn(), stop)
	s.served = c.served
	s.left = sync.OnceFunc(func() {
		e.ended(s, c.conn)
		leave()
	})
	e.registry.add(s)
	defer func() {
		if !s.goesOn {
			s.left()
		}
	}()
	e.check(s, c.fault)
	e.cfg.Handler.ServeConn(ctx, c.conn, s)
	stop(nil) // also for a session that goes on: it is the driver's by now
}

// GoOn is for a Handler that returns while the session goes on: it then ends when the
// function that it gets is called, from any goroutine, once nothing of the session is
// running any more. panicked is the panic that it has ended with, nil if there was none.
func (s *Session) GoOn() (end func(panicked any)) {
	s.goesOn = true
	return func(panicked any) {
		if panicked != nil {
			s.edge.panicked(panicked, s.conn)
		}
		s.left()
	}
}

// ended runs when nothing forwards for the session any more.
func (e *Edge) ended(s *Session, conn *tls.Conn) {
	s.confirm()
	e.registry.remove(s)
	s.stop(nil)
	conn.Close()
	e.logEnd(s)
}

// logEnd writes the one wide line of a session.
func (e *Edge) logEnd(s *Session) {
	info, reason, denial := s.info(), armor.Reason("closed"), ""
	if cause := s.cause.Load(); cause != nil {
		reason, denial = cause.Reason, cause.ID
	}
	e.cfg.Logger.Info("session ended",
		armor.KeySession, s.id, armor.KeyPeer, s.peer, armor.KeyDatabase, info.Database, armor.KeyRole, info.Role,
		armor.KeyPool, info.Pool, armor.KeyReason, reason, armor.KeyDenial, denial, armor.KeyTook, time.Since(s.since))
}

// check judges a session that has just been registered. A refusal is told when the
// startup packet has been read: a client reads no answer before it has asked.
func (e *Edge) check(s *Session, fault *armor.Denial) {
	state, _ := e.cfg.Trust.Current()
	access, denial := e.decide(state, armor.Facts{Peer: s.peer})
	if fault != nil {
		denial = fault
	}
	if denial != nil {
		s.refuse(denial, state.Revision)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.environment = access.Environment
}

// decide asks the one judge, for this listener.
func (e *Edge) decide(state *armor.State, facts armor.Facts) (armor.Access, *armor.Denial) {
	access, denial := state.Decide(facts, e.cfg.Lease.Now())
	if denial == nil && !e.serves(access.Environment) {
		denial = movedEnvironment()
	}
	return access, denial
}

// Peer returns who the client proved to be.
func (s *Session) Peer() armor.Peer { return s.peer }

// Admit asks for the database and role of the startup packet, and for the replication
// that it wants, if any. From here on every revision judges the session by them. The
// error is a *armor.Denial, recorded and with its id; the session has then ended.
func (s *Session) Admit(database, role string, replication armor.Replication) (armor.Access, error) {
	if cause := s.cause.Load(); cause != nil {
		return armor.Access{}, cause
	}
	access, denial, revision := s.admission(database, role, replication)
	if denial != nil {
		return armor.Access{}, s.refuse(denial, revision)
	}
	s.mu.Lock()
	s.granted = &granted{
		environment: access.Pool.Environment, pool: access.Pool.Name,
		factor: access.SecondFactor, verifiers: access.Database.VerifiedBy(),
		use: s.edge.uses.note(access.Vouched, s.peer.Leaf.Identity, s.edge.cfg.Lease.Now()),
	}
	s.mu.Unlock()
	// A revision published meanwhile has judged what was asked for, but could not
	// yet see what was granted.
	if state, _ := s.edge.cfg.Trust.Current(); state.Revision != revision {
		s.edge.judge(s, state)
	}
	if cause := s.cause.Load(); cause != nil {
		return armor.Access{}, cause
	}
	return access, nil
}

// Proved ends the login: factor is what the client has proved beside its key, empty for
// nothing. From here on every revision judges the session by that, too. The error is
// the cause if it has ended, or ends now since more was to be proved.
func (s *Session) Proved(factor armor.SecondFactor) error {
	s.mu.Lock()
	s.asked.loggedIn, s.asked.factor = true, factor
	if factor != "" && s.granted != nil {
		s.asked.verifiers = s.granted.verifiers
	}
	s.mu.Unlock()
	state, _ := s.edge.cfg.Trust.Current() // a later one judges by the same facts
	s.edge.judge(s, state)
	if cause := s.cause.Load(); cause != nil {
		return cause
	}
	return nil
}

// admission registers what is asked for before it loads the state that decides: a
// revision published meanwhile judges the session by the same facts. The lease is
// looked at before, so that the state is at least as new as the lease proves, and
// after, in case we slept in between.
func (s *Session) admission(database, role string, replication armor.Replication) (armor.Access, *armor.Denial, uint64) {
	e := s.edge
	if database == "" || role == "" {
		return armor.Access{}, &armor.Denial{Reason: armor.ReasonProtocol, Message: "the startup packet names no database or no user"}, 0
	}
	if e.closing.Load() {
		return armor.Access{}, armor.ShutdownDenial(), 0
	}
	facts, environment := s.want(database, role, replication)
	if e.cfg.Lease.AdmitNew(environment) != nil {
		return armor.Access{}, staleDenial(), 0
	}
	state, _ := e.cfg.Trust.Current()
	access, denial := e.decide(state, facts)
	switch {
	case denial != nil:
	case access.Environment != environment:
		denial = movedEnvironment()
	case e.cfg.Lease.AdmitNew(environment) != nil:
		denial = staleDenial()
	}
	return access, denial, state.Revision
}

func (s *Session) want(database, role string, replication armor.Replication) (armor.Facts, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.database, s.asked.role, s.asked.replication, s.state = database, role, replication, stateLogin
	return s.factsLocked(), s.environment
}

// Moment reads the clocks for LiveAt.
func (s *Session) Moment() armor.Moment { return s.edge.cfg.Lease.Moment() }

// Live is LiveAt now.
func (s *Session) Live() error { return s.LiveAt(s.Moment()) }

// LiveAt returns nil while bytes may be forwarded, or the cause with which the session
// is cut. m must have been read after the bytes were waited for. It takes no lock and
// allocates nothing while the answer is yes.
func (s *Session) LiveAt(m armor.Moment) error {
	if cause := s.cause.Load(); cause != nil {
		return cause
	}
	// Written before the Handler saw the session, so no lock is needed to read it.
	if s.edge.cfg.Lease.KeepLiveAt(s.environment, m) != nil {
		return s.lapse()
	}
	return nil
}

// lapse stores the cause and leaves it to the next sweep to tell the driver, which
// may well be the caller, in the middle of something.
func (s *Session) lapse() error {
	s.store(staleDenial(), 0)
	return s.cause.Load()
}

var (
	errHandedOver = errors.New("the session was handed over before")
	errUnproved   = errors.New("the session has not proved its second factor")
)

// HandOver gives the session's end to the driver: cut is called at most once, from
// any goroutine, must not block, and the driver calls confirm once no further byte
// will be forwarded. It returns the cause if the session has already ended.
func (s *Session) HandOver(cut func(cause error, confirm func())) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cause := s.cause.Load(); cause != nil {
		return cause
	}
	if s.driver != nil {
		return errHandedOver
	}
	if s.granted.demands() != s.asked.factor {
		return errUnproved // whatever the Handler does, nothing is forwarded for it
	}
	s.driver = cut
	return nil
}

// Refuse records a denial made by the pooler and returns it with its id.
func (s *Session) Refuse(d *armor.Denial) *armor.Denial {
	if d.ID != "" {
		return d
	}
	s.edge.denied(d.Reason)
	facts, _ := s.judged()
	state, _ := s.edge.cfg.Trust.Current()
	return s.edge.denials.record(d, facts, state.Revision)
}

// SetState is for `armorctl session list`.
func (s *Session) SetState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// cut ends the session with a denial unless it has ended already, and sees to it
// that whoever drives it knows. It reports whether this call was the one.
func (s *Session) cut(d *armor.Denial, revision uint64) bool {
	mine := s.store(d, revision)
	s.tell()
	return mine
}

// store is the one step that decides. It reports whether d became the cause.
func (s *Session) store(d *armor.Denial, revision uint64) bool {
	if s.cause.Load() != nil {
		return false
	}
	facts, _ := s.judged()
	if !s.cause.CompareAndSwap(nil, s.edge.denials.record(d, facts, revision)) {
		return false
	}
	s.edge.registry.ends(s)
	if hook := s.edge.cfg.Hooks.Cut; hook != nil {
		hook(d.Reason)
	}
	return true
}

// refuse ends a session that nobody drives yet, and leaves its connection readable,
// so that the Handler can still read the startup packet and answer it.
func (s *Session) refuse(d *armor.Denial, revision uint64) *armor.Denial {
	facts, _ := s.judged()
	if s.cause.CompareAndSwap(nil, s.edge.denials.record(d, facts, revision)) {
		s.edge.registry.ends(s)
		s.edge.denied(d.Reason)
	}
	if s.markTold() == nil {
		s.confirm()
	}
	return s.cause.Load()
}

// markTold notes that nobody needs to be told any more, and returns the driver.
func (s *Session) markTold() func(error, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = time.Now()
	return s.driver
}

// startupGrace is for a startup packet that is on its way when the session is cut.
const startupGrace = time.Second

// tell passes the cause on, once: to the driver, or through ctx to a Handler that
// has not handed over. HandOver fails from now on, so the latter is in force.
func (s *Session) tell() {
	s.mu.Lock()
	told := !s.told.IsZero()
	if !told {
		s.told = time.Now()
	}
	driver := s.driver
	s.mu.Unlock()
	if told {
		return
	}
	cause := s.cause.Load()
	if driver != nil {
		driver(cause, s.confirm)
		return
	}
	s.confirm()
	s.stop(cause)
	_ = s.conn.SetReadDeadline(time.Now().Add(startupGrace)) // a dead connection needs none
}

func (s *Session) confirm() { s.once.Do(func() { close(s.confirmed) }) }

// judged returns what the session is judged by, and what it was granted, if it was.
func (s *Session) judged() (armor.Facts, *granted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.factsLocked(), s.granted
}

func (s *Session) factsLocked() armor.Facts {
	return armor.Facts{
		Peer: s.peer, Database: s.asked.database, Role: s.asked.role, Replication: s.asked.replication,
		LoggedIn: s.asked.loggedIn, SecondFactor: s.asked.factor, Verifiers: s.asked.verifiers,
	}
}

// boundTo returns the environment, empty until the first check.
func (s *Session) boundTo() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.environment
}

// toldAt returns when the end was passed on; zero if it was not.
func (s *Session) toldAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

func (s *Session) info() armor.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := armor.SessionInfo{
		ID: s.id, Node: s.edge.cfg.Node, Certificate: s.peer.Leaf, Environment: s.environment, Source: s.peer.Source,
		Database: s.asked.database, Role: s.asked.role, Since: s.since, State: s.state,
	}
	if s.granted != nil {
		info.Pool = s.granted.pool
	}
	return info
}
