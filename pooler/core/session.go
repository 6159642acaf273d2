package core

import (
	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Config is what a Session begins with.
type Config struct {
	ID   uint64 // unique in the process, not zero
	Mode armor.PoolMode
	// Params are what the client was told at login. They must not be nil.
	Params *Params
	// Settings are those of its startup packet, all of them.
	Settings *Settings
	// Owner is who the client is. What one owner leaves behind is taken off a server
	// connection before another has it, unless Isolation says otherwise.
	Owner     string
	Isolation armor.Isolation
	// Statements is required in transaction mode. It is used in every event.
	Statements *Statements
	// Tick counts: each call returns more than any before it, of whatever session of the
	// process. It tells what was prepared later, since tables and types may have changed in
	// between. It must not block. Nil: only this session's are compared.
	Tick func() uint64
	// OnState says what becomes of commands that leave session state behind. Under
	// armor.KeepState KeepSettings are the parameters that PostgreSQL does not list and that
	// are asked for all the same, and Pins bounds who keeps a server connection; nil: nothing does.
	OnState      armor.OnState
	KeepSettings []string
	Pins         Pins
}

// Session is one client's conversation. Its events may be called by one goroutine
// at a time; after one that wished Hangup or Reset there may be no other.
//
// In transaction mode:
//
//	       Want, Granted                ReadyForQuery 'I', nothing owed
//	idle ────────────────▶ lent ──────────────────────────────────────▶ idle
//	                        │ cut, lost, gone: Discard
//	                        ▼
//	                       over
//
// In session mode a server connection is lent from the first Granted to the end.
type Session struct {
	id         uint64
	mode       armor.PoolMode
	onState    armor.OnState
	params     *Params   // that the client was told last
	login      *Params   // and at its login
	startup    *Settings // what RESET leads to
	settings   *Settings // that are to be in force
	owner      string
	isolation  armor.Isolation
	statements *Statements
	tick       func() uint64

	keepSettings []string
	bound        Pins // nil: there is none
	kept         keeping

	sv    *Server
	fence fence
	over  bool

	names   map[string]*named // the client's prepared statements; nil until the first
	inquiry inquiry
	leaving *named // that a DEALLOCATE on its way names
	unnamed unnamedStatement
	portal  marks // of the statement that the unnamed portal was bound to

	// The message from the client whose head has been dealt with.
	clientLeft int  // bytes of its body still to come
	clientDrop bool // and they are not for the server

	// The same of the message from the server.
	serverLeft int
	serverDrop bool

	cycle    bool          // an extended-query cycle is open: no release before its Sync
	behind   bool          // the message is not the first of its cycle
	risky    bool          // the open cycle has changed our notes on statements after a message that may fail
	doubt    int           // ReadyForQuery to come until we know whether earlier cycles have failed: see inDoubt
	waiting  bool          // a server connection was asked for
	skipping bool          // until Sync: answered in the server's place
	aborted  bool          // until Sync: the server skips what comes
	copying  bool          // the server takes COPY data
	both     bool          // … and sends such, too: COPY both ways, as in replication
	data     bool          // COPY data was sent, and not its end
	early    bool          // a Sync was sent ahead of the COPY, which ignores it if it has begun by then
	ending   bool          // the server has sent a FATAL, or the end of what it streams
	refusal  *pgwire.Error // what answers the next message
	warned   bool          // that session state is not kept
	numbered bool          // it has asked for the last number of a sequence
	sets     bool          // while the server connection is lent, a text came that may have set a parameter
	local    bool          // or only for the transaction
	wasReset bool          // the command whose ReadyForQuery is due was a RESET
	ledBack  []string      // the startup packet's reported parameters that a text on its way leads back to that
	back     marks         // resets, resetsAll: such a text has run since the last ReadyForQuery
	mayFall  bool          // a block is open in which settings were put in force again: a ROLLBACK takes them away
	stats    Stats
	heard    uint64 // events that brought something of the client
	settled  uint64 // events after which PostgreSQL owed less, or nothing: see Activity
}

// unnamedStatement is the client's unnamed statement. PostgreSQL keeps one between
// transactions, so that we keep its text for the next server connection.
type unnamedStatement struct {
	tail []byte // of the Parse message; its array is used again
	turn uint32 // counts them
	kept bool
	reading
}

// unnamedKept is the longest unnamed statement that can be bound in a later
// transaction than it was parsed in, in bytes.
const unnamedKept = 64 << 10

// Stats counts what a session has done.
type Stats struct {
	Queries      uint64 // simple queries, function calls and Executes
	Transactions uint64
}

// New returns a Session that has logged in and is idle.
func New(cfg Config) *Session {
	if cfg.Tick == nil {
		own := uint64(0)
		cfg.Tick = func() uint64 { own++; return own }
	}
	return &Session{
		id: cfg.ID, mode: cfg.Mode, onState: cfg.OnState, params: cfg.Params, login: cfg.Params, startup: cfg.Settings, settings: cfg.Settings,
		owner: cfg.Owner, isolation: cfg.Isolation, statements: cfg.Statements, tick: cfg.Tick,
		keepSettings: cfg.KeepSettings, bound: cfg.Pins,
	}
}

// Server returns the server connection that is lent, or nil.
func (s *Session) Server() *Server { return s.sv }

// Stats returns the counts so far.
func (s *Session) Stats() Stats { return s.stats }

// Idle reports whether the client is between transactions, owed nothing and in the
// middle of no message: it may be sent away without losing anything.
func (s *Session) Idle() bool {
	return !s.waiting && s.kept.phase == asksNothing && !s.cycle && !s.skipping && !s.aborted && s.clientLeft == 0 && s.serverLeft == 0 &&
		(s.sv == nil || s.sv.status == 'I' && s.sv.owed.empty())
}

// State is what `armorctl session list` says: a word, and for what a server connection is kept.
func (s *Session) State() string {
	switch {
	case s.waiting:
		return "waiting"
	case s.Idle() && s.kept.pins != 0:
		return "idle, pinned by " + s.Pinned()
	case s.Idle():
		return "idle"
	case s.sv != nil && s.sv.owed.empty():
		return "in transaction"
	}
	return "active"
}

// Refuse answers Want when no server connection can be had. A FATAL ends the
// session; an ERROR answers the request that waits, as PostgreSQL would.
func (s *Session) Refuse(e *pgwire.Error, out *Output) {
	out.reset()
	s.waiting = false
	if e.Fatal() {
		s.fail(e, out)
		return
	}
	s.refusal = e
}

// Notice tells the client something while it waits for a server connection.
func (s *Session) Notice(e *pgwire.Error, out *Output) {
	out.reset()
	if s.waiting && !s.over {
		out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendNotice(b, e) })
	}
}

// ServerLost tells that the server connection that is lent has ended or failed.
func (s *Session) ServerLost(out *Output) {
	out.reset()
	if s.sv == nil || s.over {
		return
	}
	if s.ending && s.serverLeft == 0 { // PostgreSQL has said why
		s.end(out)
		out.Client = Hangup
		return
	}
	s.fail(s.lostError(), out)
}

// lostError says what is known of the outcome: nothing, once something was sent that
// may have committed.
func (s *Session) lostError() *pgwire.Error {
	e := &pgwire.Error{Severity: pgwire.SeverityFatal, Code: "08006", Message: "the connection to PostgreSQL was lost"}
	if s.sv.owed.empty() {
		return e
	}
	if s.both { // replication commits nothing
		return e
	}
	open := s.sv.status == 'I' && !s.due(opAsk)
	for _, o := range s.sv.owed.ops[s.sv.owed.head:] {
		open = open || o.marks&commits != 0
	}
	if open {
		e.Code = "08007"
		e.Detail = "The transaction may have been committed or not."
	}
	return e
}

// ClientGone tells that the client has closed its connection.
func (s *Session) ClientGone(out *Output) {
	out.reset()
	if !s.over {
		s.end(out)
		out.Client = Hangup
	}
}

// Cut ends the session: with e at a message boundary, else with a reset.
func (s *Session) Cut(e *pgwire.Error, out *Output) {
	out.reset()
	if !s.over {
		s.fail(e, out)
	}
}

// dropUnnamed forgets the client's unnamed statement, wherever it is.
func (s *Session) dropUnnamed() {
	s.unnamed.kept = false
	s.unnamed.turn++
}

// fail ends the session with an error. The client reads it only between messages.
func (s *Session) fail(e *pgwire.Error, out *Output) {
	if s.serverLeft > 0 && !s.serverDrop {
		s.abandon(out)
		out.Client = Reset
		return
	}
	s.abandon(out)
	s.releaseReady(out) // the transaction is over, whatever comes now
	s.sayFatal(e, out)
}

func (s *Session) sayFatal(e *pgwire.Error, out *Output) {
	out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendError(b, e) })
	out.Client = Hangup
}

// protocolError ends the session because of what the client sent, in PostgreSQL's
// words.
func (s *Session) protocolError(err error, out *Output) {
	s.fail(&pgwire.Error{Severity: pgwire.SeverityFatal, Code: "08P01", Message: text(err)}, out)
}

// text is an error's text without that of the sentinel that it wraps.
func text(err error) string {
	const prefix = "invalid: "
	if t := err.Error(); len(t) > len(prefix) && t[:len(prefix)] == prefix {
		return t[len(prefix):]
	}
	return err.Error()
}

// end is the client's own end: the server connection goes back if PostgreSQL does nothing for
// the client any more. A transaction that is open is rolled back there.
func (s *Session) end(out *Output) {
	if s.sv == nil || !s.Idle() && !s.leavesBlock() || s.ending || s.sv.suspect {
		s.abandon(out)
		return
	}
	if s.mode == armor.SessionMode || s.kept.pins.fixed() != 0 || s.sv.Open() && (s.sets || s.mayFall || s.mustAsk()) {
		s.sv.dirty = true
	}
	s.forgetAll()
	s.sv, s.over = nil, true
	s.setPins(0)
	out.Server = Release
}

// leavesBlock reports whether the client is between two commands of a transaction block, so that
// a ROLLBACK ends it.
func (s *Session) leavesBlock() bool {
	return s.sv.Open() && s.betweenCommands()
}

// betweenCommands reports whether nothing is under way on the server connection that is lent.
func (s *Session) betweenCommands() bool {
	return s.sv.owed.empty() && !s.cycle && !s.aborted && !s.copying && s.clientLeft == 0 && s.serverLeft == 0
}

// abandon ends the session and whatever PostgreSQL is doing for it.
func (s *Session) abandon(out *Output) {
	s.forgetAll()
	out.Server = Keep
	if s.sv != nil {
		out.Server = Discard
	}
	s.sv, s.over, s.waiting = nil, true, false
	s.setPins(0)
}

// forgetAll lets go of the client's prepared statements, those included whose Close
// is not yet answered.
func (s *Session) forgetAll() {
	if s.sv != nil {
		for !s.sv.owed.empty() {
			o := s.sv.owed.pop()
			s.closed(&o)
		}
	}
	for name := range s.names {
		s.forget(name)
	}
	s.unnamed = unnamedStatement{turn: s.unnamed.turn}
}

func (s *Session) forget(name string) {
	s.statements.release(s.names[name].st)
	delete(s.names, name)
}

// settle releases the server connection once nothing keeps it.
func (s *Session) settle(out *Output) {
	if !s.atRest() {
		return
	}
	if s.mustAsk() {
		s.kept.phase, out.Server = askDue, Ask
		return
	}
	if s.pinned() {
		return
	}
	out.Server = Release
	if s.sv.suspect {
		out.Server = Discard
	}
	s.sv, s.inquiry, s.sets, s.local, s.kept.undone = nil, inquiry{}, false, false, false
}

// atRest reports whether the client's transaction is over and nothing is under way on the
// server connection that is lent to it for no longer.
func (s *Session) atRest() bool {
	return s.sv != nil && !s.over && s.mode != armor.SessionMode && s.sv.status == 'I' && s.betweenCommands() && !s.ending
}
