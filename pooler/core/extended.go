package core

import (
	"bytes"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// extended deals with the messages of the extended query protocol. In session mode
// they pass as they are. In transaction mode the client's statements have names on
// the server that follow from their text, so that any server connection can be made
// to have them: Parse is sent when this connection lacks the statement, whether the
// client has just sent it or hours ago.
func (s *Session) extended(h pgwire.Header, b []byte, out *Output) int {
	if s.mode == armor.SessionMode {
		return s.extendedAsItIs(h, b, out)
	}
	switch h.Type {
	case pgwire.Parse:
		return s.parse(h, b, out)
	case pgwire.Bind:
		return s.bind(h, b, out)
	case pgwire.Describe:
		return s.describe(h, b, out)
	case pgwire.Close:
		return s.closeStatement(h, b, out)
	default:
		return s.execute(h, b, out)
	}
}

// opOf is the reply that a message of the extended protocol is owed.
func opOf(message byte) opKind {
	switch message {
	case pgwire.Parse:
		return opParse
	case pgwire.Bind:
		return opBind
	case pgwire.Describe:
		return opDescribe
	case pgwire.Close:
		return opClosePortal
	}
	return opExecute
}

func (s *Session) extendedAsItIs(h pgwire.Header, b []byte, out *Output) int {
	if !s.begin(out) {
		return 0
	}
	o := op{kind: opOf(h.Type)}
	if h.Type == pgwire.Execute {
		s.stats.Queries++
		o.marks = commits // for all we know
	}
	s.sv.owed.push(o)
	return s.pass(h, b, out)
}

// begin makes sure of a server connection for a cycle of messages up to Sync, and of
// what is noted of statements.
func (s *Session) begin(out *Output) bool {
	if !s.lent(out) {
		return false
	}
	if s.inDoubt() {
		out.Server = Wait
		return false
	}
	s.reinstate(out)
	s.behind, s.cycle = s.cycle, true
	s.shrink(out)
	return true
}

// shrink closes what is too much since the limit has become smaller. Not while an earlier
// cycle may begin a COPY, in the middle of which PostgreSQL refuses a Close.
func (s *Session) shrink(out *Output) {
	if s.sv.prepared.len() > s.sv.keeps && !s.behind && !s.copying && !s.sv.owed.holdsEnd() {
		s.closeOldest(out)
	}
}

// inDoubt reports whether an earlier cycle has changed what is noted of statements
// behind a message that may have failed: PostgreSQL has skipped it then. It has still
// to answer that cycle.
func (s *Session) inDoubt() bool {
	return s.doubt > 0 && !s.copying && s.sv.owed.holdsEnd()
}

// noted records that our notes on statements were changed before the reply has come.
func (s *Session) noted() { s.risky = s.risky || s.behind }

// notedAhead is noted for a statement that the client does not know to be sent: it fails
// in a block that has failed, wherever in its cycle it is.
func (s *Session) notedAhead() { s.risky = s.risky || s.behind || s.mayBeAborted() }

// mayBeAborted reports whether the transaction that a message comes to may have
// failed.
func (s *Session) mayBeAborted() bool { return s.sv.status == 'E' || s.sv.owed.holdsEnd() }

func (s *Session) parse(h pgwire.Header, b []byte, out *Output) int {
	if h.Body > unnamedKept && len(b) > pgwire.HeaderSize && b[pgwire.HeaderSize] == 0 {
		return s.parseLong(h, b, out)
	}
	if h.Body > maxStatement {
		s.fail(&pgwire.Error{
			Severity: pgwire.SeverityFatal, Code: "54000", Message: "prepared statement is too long to be kept in transaction mode",
			Hint: "Use an unnamed statement, or a pool in session mode.",
		}, out)
		return 0
	}
	if !s.whole(h, b, out) {
		return 0
	}
	name, tail, err := pgwire.ParseFields(body(h, b))
	if err != nil {
		s.protocolError(err, out)
		return 0
	}
	if !s.begin(out) {
		return 0
	}
	if s.refusing() && scan(pgwire.ParseText(tail))&leavesBehind != 0 {
		return s.refuseParse(h, name, out)
	}
	if len(name) == 0 {
		return s.parseUnnamed(h, b, tail, out)
	}
	return s.parseNamed(h, string(name), tail, out)
}

// parseLong forwards an unnamed statement that is too long to be kept: it can be
// bound until the transaction ends.
func (s *Session) parseLong(h pgwire.Header, b []byte, out *Output) int {
	if !s.begin(out) {
		return 0
	}
	s.unnamed.kept = false
	s.tookUnnamed(reading{marks: unknownText})
	return s.pass(h, b, out)
}

func (s *Session) parseUnnamed(h pgwire.Header, b, tail []byte, out *Output) int {
	text := pgwire.ParseText(tail)
	told := read(text)
	if told.marks&forgets != 0 {
		if name, _, ok := deallocated(text); ok && s.names[name] != nil {
			return s.parseDeallocate(h, s.names[name], out)
		}
	}
	s.asksNumbers(told.marks, out)
	s.unnamed.tail = append(s.unnamed.tail[:0], tail...)
	s.unnamed.kept = true
	s.tookUnnamed(told)
	return s.pass(h, b, out)
}

// parseDeallocate is parseUnnamed for the DEALLOCATE of a statement that was prepared by Parse,
// which the server has under another name: psycopg 3 closes its statements this way.
func (s *Session) parseDeallocate(h pgwire.Header, n *named, out *Output) int {
	s.ensure(n, out)
	text := `DEALLOCATE "` + s.sv.nameOf(n.st) + `"`
	s.unnamed.tail = append(append(s.unnamed.tail[:0], text...), 0, 0, 0)
	s.unnamed.kept, s.leaving = true, n
	s.tookUnnamed(reading{marks: forgets})
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendParse(b, "", s.unnamed.tail) })
	return h.Size()
}

// hasLeft notes that the statement which a DEALLOCATE has named is gone.
func (s *Session) hasLeft() {
	n := s.leaving
	if s.leaving = nil; n == nil {
		return
	}
	s.sv.prepared.remove(n.st.key)
	if s.names[n.name] == n {
		s.forget(n.name)
	}
}

// tookUnnamed notes that the server connection is about to have this session's
// unnamed statement.
func (s *Session) tookUnnamed(told reading) {
	s.unnamed.turn++
	s.sv.unnamedOwner, s.sv.unnamedTurn = s.id, s.unnamed.turn
	s.unnamed.reading = told
	s.touches(told)
	s.noted()
	s.sv.owed.push(op{kind: opParse, marks: told.marks, turn: s.unnamed.turn})
}

func (s *Session) parseNamed(h pgwire.Header, name string, tail []byte, out *Output) int {
	if have := s.names[name]; have != nil {
		return s.parseAgain(h, have, tail, out)
	}
	reads := s.settings.reads()
	st := s.statements.intern(tail, reads)
	if st == nil {
		s.fail(&pgwire.Error{
			Severity: pgwire.SeverityFatal, Code: "53200", Message: "no room for another prepared statement",
			Detail: "The clients of this node have prepared too many different statements.",
		}, out)
		return 0
	}
	s.asksNumbers(st.marks, out)
	n := &named{name: name, st: st, reads: reads, age: s.tick()}
	if s.names == nil {
		s.names = map[string]*named{}
	}
	s.names[name] = n
	s.noted()
	if mutant == RepliesSwapped && s.sv.prepared.touch(st.key) {
		out.ToClient.compose(pgwire.AppendParseComplete)
		return h.Size()
	}
	s.sv.prepared.markStale(st.key) // what a client prepares is what its tables are now
	s.prepare(op{kind: opParse, name: n, st: st}, out)
	return h.Size()
}

// parseAgain lets PostgreSQL refuse a name that is taken: it is told to prepare the
// new text under the old one's name. Its answer is put into the client's words.
func (s *Session) parseAgain(h pgwire.Header, have *named, tail []byte, out *Output) int {
	s.ensure(have, out)
	taken := s.sv.nameOf(have.st)
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendParse(b, taken, tail) })
	s.sv.owed.push(op{kind: opParse, name: &named{name: have.name, st: have.st}})
	return h.Size()
}

// ensure prepares a statement that this server connection lacks, or has from before the
// client has prepared it.
func (s *Session) ensure(n *named, out *Output) {
	s.adapt(n)
	if node := s.sv.prepared.find(n.st.key); node != nil && node.age < n.age {
		node.stale = true
	}
	if !s.sv.prepared.touch(n.st.key) && mutant != ReparseSkipped {
		s.notedAhead()
		s.prepare(op{kind: opParseAhead, st: n.st}, out)
	}
}

// adapt has a statement be one of the present settings, where it must be prepared again: it
// would be read under them.
func (s *Session) adapt(n *named) {
	reads := s.settings.reads()
	if n.reads == reads || s.sv.prepared.find(n.st.key) != nil {
		return
	}
	if st := s.statements.intern(n.st.tail, reads); st != nil {
		s.statements.release(n.st)
		n.st, n.reads = st, reads
	}
}

// prepare sends the Parse of a statement. One that must be prepared anew is closed
// first.
func (s *Session) prepare(o op, out *Output) {
	st, name := o.st, s.sv.nameOf(o.st)
	if s.sv.prepared.isStale(st.key) {
		out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendCloseStatement(b, name) })
		s.sv.owed.push(op{kind: opCloseAhead})
		o.marks |= anew
	}
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendParse(b, name, st.tail) })
	s.sv.owed.push(o)
	s.keep(st, out)
}

// keep notes a statement as prepared.
func (s *Session) keep(st *statement, out *Output) {
	s.sv.prepared.add(st.key, s.sv.nameOf(st), s.tick())
	s.closeOldest(out)
}

// closeOldest closes the least recently used statements while there are more than the server
// connection keeps.
func (s *Session) closeOldest(out *Output) {
	for s.sv.prepared.len() > s.sv.keeps {
		key, name := s.sv.prepared.oldest()
		s.sv.prepared.remove(key)
		out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendCloseStatement(b, name) })
		s.sv.owed.push(op{kind: opCloseAhead, st: &statement{key: key}})
	}
}

// bind forwards a Bind, with the statement's name on the server. Its parameters pass
// as they come.
func (s *Session) bind(h pgwire.Header, b []byte, out *Output) int {
	part := b[pgwire.HeaderSize:min(h.Size(), len(b))]
	portal, name, tail, ok, err := pgwire.BindFields(part, len(part) == h.Body)
	switch {
	case err != nil:
		s.protocolError(err, out)
		return 0
	case !ok:
		out.Need = min(h.Size(), len(b)+1)
		return 0
	case !s.begin(out):
		return 0
	}
	n := s.target(name, out)
	if n != nil {
		switch s.fit(n, out) {
		case unknown:
			return 0
		case changed:
			return s.refuseBind(h, b, refused, out)
		}
	}
	if !s.mayPin(s.marksOf(n)) {
		return s.refuseBind(h, b, refused|crowded, out)
	}
	if len(portal) == 0 {
		s.portal = s.marksOf(n)
	}
	o := op{kind: opBind, name: n}
	if n == nil {
		s.sv.owed.push(o)
		return s.pass(h, b, out)
	}
	head, serverName := len(part)-len(tail), s.sv.nameOf(n.st)
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendBindHead(b, portal, serverName, h.Body-head) })
	s.sv.owed.push(o)
	s.clientLeft, s.clientDrop = h.Body-head, false
	return pgwire.HeaderSize + head
}

// target returns the client's statement that a message is about, having seen to it
// that the server has it; nil for the unnamed one, and for a name that the client has
// not prepared: then the message may pass as it is, and PostgreSQL says so.
func (s *Session) target(name []byte, out *Output) *named {
	if len(name) == 0 {
		s.ensureUnnamed(out)
		return nil
	}
	n := s.names[string(name)]
	switch {
	case n != nil:
		s.ensure(n, out)
		s.touches(n.st.reading)
	case bytes.HasPrefix(name, []byte(statementPrefix)):
		// A guess at somebody else's statement: let it miss.
		n = &named{name: string(name), st: &statement{}}
	}
	return n
}

func (s *Session) marksOf(n *named) marks {
	if n == nil {
		return s.unnamed.marks
	}
	return n.st.marks
}

// ensureUnnamed sees to it that the server's unnamed statement is this client's, or
// nobody's.
func (s *Session) ensureUnnamed(out *Output) {
	if s.sv.unnamedOwner == s.id && s.sv.unnamedTurn == s.unnamed.turn {
		return
	}
	s.notedAhead()
	if s.unnamed.kept {
		out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendParse(b, "", s.unnamed.tail) })
		s.sv.owed.push(op{kind: opParseAhead, turn: s.unnamed.turn})
		s.sv.unnamedOwner, s.sv.unnamedTurn = s.id, s.unnamed.turn
		s.touches(s.unnamed.reading)
		return
	}
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendCloseStatement(b, "") })
	s.sv.owed.push(op{kind: opCloseAhead})
	s.sv.unnamedOwner = 0
}

func (s *Session) describe(h pgwire.Header, b []byte, out *Output) int {
	if !s.whole(h, b, out) {
		return 0
	}
	prepared, name, err := pgwire.TargetFields(h.Type, body(h, b))
	if err != nil {
		s.protocolError(err, out)
		return 0
	}
	if !s.begin(out) {
		return 0
	}
	o := op{kind: opDescribe}
	if prepared {
		o.name = s.target(name, out)
	}
	if o.name == nil {
		s.sv.owed.push(o)
		return s.pass(h, b, out)
	}
	o.st = o.name.st
	s.sv.owed.push(o)
	target := s.sv.nameOf(o.st)
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendDescribeStatement(b, target) })
	return h.Size()
}

// closeStatement forwards the Close of a portal. That of a statement is answered here: the
// server connection keeps it for the next client that prepares the same.
func (s *Session) closeStatement(h pgwire.Header, b []byte, out *Output) int {
	if !s.whole(h, b, out) {
		return 0
	}
	prepared, name, err := pgwire.TargetFields(h.Type, body(h, b))
	if err != nil {
		s.protocolError(err, out)
		return 0
	}
	if s.sv == nil { // no portal is open either
		if n := s.names[string(name)]; prepared && n != nil {
			s.forget(n.name)
		}
		if prepared && len(name) == 0 {
			s.dropUnnamed()
		}
		out.ToClient.compose(pgwire.AppendCloseComplete)
		return h.Size()
	}
	if !s.begin(out) {
		return 0
	}
	if !prepared {
		s.sv.owed.push(op{kind: opClosePortal})
		return s.pass(h, b, out)
	}
	n := s.names[string(name)]
	delete(s.names, string(name))
	s.noted()
	if len(name) == 0 {
		s.dropUnnamed()
	}
	if s.sv.owed.holdsEnd() { // an earlier cycle may begin a COPY, in the middle of which PostgreSQL refuses it
		s.sv.owed.push(op{kind: opCloseNone, name: n})
		out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendCloseStatement(b, refusedName) })
		return h.Size()
	}
	s.sv.owed.push(op{kind: opClosed, name: n})
	s.answerDue(out)
	return h.Size()
}

func (s *Session) execute(h pgwire.Header, b []byte, out *Output) int {
	if !s.whole(h, b, out) {
		return 0
	}
	portal, err := pgwire.ExecutePortal(body(h, b))
	if err != nil {
		s.protocolError(err, out)
		return 0
	}
	if !s.begin(out) {
		return 0
	}
	o := op{kind: opExecute, marks: commits | forgets}
	if len(portal) == 0 {
		o.marks = s.portal
	}
	s.stats.Queries++
	s.risky = s.risky || o.marks&forgets != 0
	s.sv.owed.push(o)
	return s.pass(h, b, out)
}
