package core

import (
	"bytes"
	"errors"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// FromServer takes bytes from the server connection that is lent and returns how many
// it consumed. The driver keeps the others and feeds them again with at least Need
// bytes.
func (s *Session) FromServer(b []byte, out *Output) (n int) {
	out.reset()
	sv := s.sv
	for n < len(b) && s.sv != nil {
		used := s.fromServer(b[n:], out)
		if used == 0 {
			break
		}
		n += used
		if s.sv != nil && s.serverLeft == 0 {
			s.answerDue(out)
			if s.sv.owed.empty() {
				s.settled++
			}
			s.settle(out)
		}
	}
	if sv != nil {
		sv.counts.Sent += uint64(n)
	}
	return n
}

// fromServer deals with the rest of a message, or with the head of the next one.
func (s *Session) fromServer(b []byte, out *Output) int {
	if s.serverLeft > 0 {
		n := min(s.serverLeft, len(b))
		s.serverLeft -= n
		if !s.serverDrop {
			out.ToClient.pass(b[:n])
		}
		return n
	}
	if len(b) < pgwire.HeaderSize {
		out.Need = pgwire.HeaderSize
		return 0
	}
	h, err := pgwire.ServerHeader(b)
	if err != nil {
		s.broken(err, out)
		return 0
	}
	return s.reply(h, b, out)
}

// broken ends the session because PostgreSQL sent what we cannot follow.
func (s *Session) broken(err error, out *Output) {
	s.fail(&pgwire.Error{Severity: pgwire.SeverityFatal, Code: "08P01",
		Message: "PostgreSQL sent what its protocol does not allow", Detail: text(err)}, out)
}

// forward passes the head of a message on, or swallows it when it answers a message
// of our own, and lets the body follow.
func (s *Session) forward(h pgwire.Header, b []byte, out *Output) int {
	n := min(h.Size(), len(b))
	s.serverLeft, s.serverDrop = h.Size()-n, s.swallows() && !s.notifies(h) || mutant == NoticeLost && h.Type == pgwire.NoticeResponse
	if !s.serverDrop {
		out.ToClient.pass(b[:n])
	}
	return n
}

// swallows reports whether the reply that is due is not the client's.
func (s *Session) swallows() bool {
	if s.sv.owed.empty() {
		return false
	}
	switch s.sv.owed.first().kind {
	case opFence, opReinstate, opAsk, opParseAhead, opCloseAhead, opDescribeAhead:
		return true
	}
	return false
}

// notifies reports whether a message is what the client listens for, which comes when it comes:
// also while a question of ours is answered. Ahead of a fence it was another client that listened.
func (s *Session) notifies(h pgwire.Header) bool {
	return h.Type == pgwire.NotificationResponse && !s.due(opFence)
}

// reply deals with the head of a message.
func (s *Session) reply(h pgwire.Header, b []byte, out *Output) int {
	switch h.Type {
	case pgwire.DataRow, pgwire.CopyData:
		if s.due(opAsk) {
			return s.answerRow(h, b, out)
		}
		return s.forward(h, b, out)
	case pgwire.ErrorResponse, pgwire.CommandComplete, pgwire.ParameterStatus, pgwire.ReadyForQuery:
		return s.replyThatSteers(h, b, out)
	case pgwire.ParseComplete, pgwire.BindComplete, pgwire.CloseComplete, pgwire.NoData, pgwire.EmptyQueryResponse, pgwire.PortalSuspended:
		if len(b) < h.Size() {
			out.Need = h.Size()
			return 0
		}
		n := s.forward(h, b, out)
		s.answered(h.Type)
		return n
	case pgwire.RowDescription, pgwire.ParameterDescription:
		return s.description(h, b, out)
	case pgwire.CopyInResponse, pgwire.CopyBothResponse:
		n := s.forward(h, b, out)
		s.copyBegins()
		s.both = h.Type == pgwire.CopyBothResponse
		return n
	}
	return s.forward(h, b, out)
}

// description deals with the answer to a Describe, or the head of a result.
func (s *Session) description(h pgwire.Header, b []byte, out *Output) int {
	asked := s.due(opDescribe) || s.due(opDescribeAhead)
	if asked && s.sv.owed.first().st != nil && h.Size() <= smallReply {
		if len(b) < h.Size() {
			out.Need = h.Size()
			return 0
		}
		s.described(pgwire.DescriptionFields(b[:h.Size()]))
	}
	n := s.forward(h, b, out)
	if asked && h.Type == pgwire.RowDescription {
		s.describedWhole(s.sv.owed.pop()) // what is left of the body follows; nothing is answered in between
	}
	return n
}

// copyBegins notes that PostgreSQL takes COPY data. In the extended protocol a Sync is
// still to come then, since those before the data do not count.
func (s *Session) copyBegins() {
	if s.sv.owed.empty() {
		return
	}
	ignored, over := s.sv.owed.copyBegins()
	s.copying, s.early = !over, ignored
	if s.due(opExecute) {
		s.cycle = !s.sv.owed.holds(opSync)
	}
}

// due reports whether the next reply answers a message of this kind.
func (s *Session) due(kind opKind) bool {
	return !s.sv.owed.empty() && s.sv.owed.first().kind == kind
}

// answered takes off the queue the entry that a short reply answers.
func (s *Session) answered(reply byte) {
	if s.sv.owed.empty() {
		return
	}
	o := s.sv.owed.first()
	switch reply {
	case pgwire.ParseComplete:
		s.popIf(o.kind == opParse || o.kind == opParseAhead)
	case pgwire.BindComplete:
		s.popIf(o.kind == opBind)
	case pgwire.CloseComplete:
		s.closed(o)
		s.popIf(o.kind == opClosePortal || o.kind == opCloseAhead || o.kind == opCloseNone)
	case pgwire.NoData:
		if o.kind == opDescribe || o.kind == opDescribeAhead {
			s.described([]byte{reply})
			s.describedWhole(s.sv.owed.pop())
		}
	case pgwire.EmptyQueryResponse, pgwire.PortalSuspended, pgwire.CommandComplete:
		s.popIf(o.kind == opExecute)
	}
}

func (s *Session) popIf(matches bool) {
	if matches {
		s.sv.owed.pop()
	}
}

// answerDue gives the answers that are ours to give, once all that come before them have
// been given.
func (s *Session) answerDue(out *Output) {
	for !s.sv.owed.empty() {
		switch o := s.sv.owed.first(); o.kind {
		case opClosed:
			s.closed(o)
			out.ToClient.compose(pgwire.AppendCloseComplete)
		case opCopyEnd: // of no COPY, or of one that failed
		default:
			return
		}
		s.sv.owed.pop()
	}
}

// closed lets go of a statement whose Close has been answered.
func (s *Session) closed(o *op) {
	if (o.kind == opClosed || o.kind == opCloseNone) && o.name != nil {
		s.statements.release(o.name.st)
	}
}

// errorSeen is how much of a long error is enough to know its severity and code.
const errorSeen = 512

// replyThatSteers deals with messages whose content we must know.
func (s *Session) replyThatSteers(h pgwire.Header, b []byte, out *Output) int {
	enough := h.Size()
	if h.Type == pgwire.ErrorResponse && h.Body > scanLimit {
		enough = pgwire.HeaderSize + errorSeen
	} else if h.Size() > smallReply {
		s.broken(errTooLong, out)
		return 0
	}
	if len(b) < enough {
		out.Need = enough
		return 0
	}
	body := b[pgwire.HeaderSize:enough]
	switch h.Type {
	case pgwire.ErrorResponse:
		return s.errorReply(h, b, body, out)
	case pgwire.CommandComplete:
		return s.complete(h, b, body, out)
	case pgwire.ParameterStatus:
		return s.status(h, b, body, out)
	}
	return s.readyForQuery(h, b, body, out)
}

var (
	errTooLong = errors.New("message is too long")
	errUnasked = errors.New("ReadyForQuery that no message has asked for")
)

func (s *Session) status(h pgwire.Header, b, body []byte, out *Output) int {
	name, value, err := pgwire.StatusFields(body)
	if err != nil {
		s.broken(err, out)
		return 0
	}
	s.sv.setParam(string(name), string(value))
	if !s.sets && !s.local {
		s.sv.setBase(string(name), string(value))
	}
	if s.swallows() {
		return h.Size()
	}
	said := string(value)
	if s.attribute(string(name), said) {
		said, _ = s.login.Get(string(name))
	}
	s.tellOf(string(name), said, out)
	return h.Size()
}

func (s *Session) complete(h pgwire.Header, b, body []byte, out *Output) int {
	tag, err := pgwire.CompleteTag(body)
	if err != nil {
		s.broken(err, out)
		return 0
	}
	if s.mode != armor.SessionMode && !s.sv.owed.empty() && !s.swallows() {
		s.noteTag(tag, s.sv.owed.first().marks, out)
		if s.over {
			return 0
		}
	}
	s.copying, s.early = false, false
	s.ending = s.ending || s.both // a server that shuts down says no more than this to whom it streams
	n := s.forward(h, b, out)
	s.answered(h.Type)
	return n
}

// noteTag looks at what kind of command was run. Some leave a state behind that the next
// client must not meet, and that this client will not find again.
func (s *Session) noteTag(tag []byte, m marks, out *Output) {
	switch string(tag) {
	case "SET":
		if m&harmlessSet == 0 {
			s.leaves("a setting", m&sets, out)
		}
		if m&(sets|resets) == resets { // TO DEFAULT
			s.wereReset(m)
		}
	case "PREPARE":
		s.leaves("a statement prepared by SQL", m&preparesSQL, out)
	case "LISTEN":
		s.leaves("a LISTEN", m&listens, out)
	case "RESET":
		s.sv.dirty = s.sv.dirty || !s.keeps()
		s.wereReset(m)
	case "ROLLBACK":
		s.wasUndone()
	case "LOAD":
		s.sv.dirty = s.sv.dirty || !s.keeps()
	case "DISCARD ALL":
		s.forgetNames()
		s.sv.wipe()
		s.sv.strip()
		s.wereReset(m)
		if s.keeps() && s.sv.owed.len() == 1 {
			s.startAnew(out)
		}
	case "DEALLOCATE":
		s.hasLeft()
	case "DEALLOCATE ALL":
		s.forgetNames()
		s.sv.prepared.clear()
	}
}

// leaves marks the server connection and warns the client, once. Where state is kept it is asked
// for, also when the words did not show it.
func (s *Session) leaves(what string, shown marks, out *Output) {
	if s.keeps() {
		if shown == 0 {
			s.kept.touched.marks |= mayChange
		}
		return
	}
	s.sv.dirty = true
	switch {
	case s.onState == armor.PinState || s.warned:
		return
	case s.onState == armor.RefuseState: // its words did not show it
		s.fail(errStateLeft, out)
		return
	}
	s.warned = true
	out.ToClient.compose(func(b []byte) []byte {
		return pgwire.AppendNotice(b, &pgwire.Error{
			Severity: pgwire.SeverityWarning, Code: "01000", Message: what + " is not kept between transactions",
			Detail: "This pool lends server connections by transaction.", Hint: "Use a pool in session mode, or SET LOCAL inside of a transaction.",
		})
	})
}

// forgetNames lets go of the names that the client has given to statements.
func (s *Session) forgetNames() {
	for name := range s.names {
		s.forget(name)
	}
}

// errorReply forwards an error. After one, PostgreSQL skips what comes before the
// next Sync, so that no reply to it is due.
func (s *Session) errorReply(h pgwire.Header, b, body []byte, out *Output) int {
	e := pgwire.ParseError(body)
	s.ending = s.ending || e.Fatal()
	s.sv.suspect = s.sv.suspect || s.early
	s.copying, s.early = false, false
	if s.due(opFence) {
		s.fenceFailed(e, out)
		return min(h.Size(), len(b))
	}
	if s.due(opReinstate) {
		s.fail(settingsError(e), out)
		return 0
	}
	if s.due(opAsk) && !e.Fatal() {
		return s.answerFailed(h, b)
	}
	s.wasUndone()
	s.releaseReady(out)
	n := h.Size()
	if s.isRefusal(e) {
		s.say(s.refusalDue(), out)
	} else if theirs, clients := s.renamed(); len(theirs) > 0 && len(body) == h.Body && bytes.Contains(body, theirs) {
		whole := bytes.ReplaceAll(b[:n], theirs, clients)
		out.ToClient.compose(func(dst []byte) []byte { return pgwire.AppendResized(dst, whole) })
	} else {
		n = min(n, len(b))
		out.ToClient.pass(b[:n])
		s.serverLeft, s.serverDrop = h.Size()-n, false
	}
	s.skipOwed(e)
	return n
}

// renamed returns what the server and the client call the statement that the next reply due is
// about; nothing if it is about none, or both call it the same.
func (s *Session) renamed() (server, client []byte) {
	if s.sv.owed.empty() || s.sv.owed.first().name == nil {
		return nil, nil
	}
	n := s.sv.owed.first().name
	return []byte(s.sv.nameOf(n.st)), []byte(n.name)
}

// errBlock is PgBouncer's. The block was begun by then, and is rolled back with the end
// of the server connection.
var errBlock = &pgwire.Error{
	Severity: pgwire.SeverityFatal, Code: "0A000", Message: "transaction blocks not allowed in statement pooling mode",
	Hint: "Use a pool in transaction mode.",
}

// readyForQuery ends a cycle.
func (s *Session) readyForQuery(h pgwire.Header, b, body []byte, out *Output) int {
	status, err := pgwire.ReadyStatus(body)
	if err != nil {
		s.broken(err, out)
		return 0
	}
	for !s.sv.owed.empty() {
		o := s.sv.owed.pop()
		switch o.kind {
		case opFence:
			s.sv.status = status
			s.fenceHeld(out)
			return h.Size()
		case opReinstate:
			s.sv.status = status
			s.tell(out)
			return h.Size()
		case opAsk:
			s.sv.status = status
			s.learn(out)
			return h.Size()
		case opQuery, opFunction, opSync:
			s.leadBack(out)
			s.copying, s.both, s.ending, s.wasReset = false, false, false, false
			s.settled++
			if s.doubt--; s.doubt < 0 || s.sv.owed.empty() {
				s.doubt = 0
			}
			if o.kind == opQuery && s.sv.status == 'I' && status == 'I' && s.sv.owed.empty() && s.keeps() {
				s.wasPlainReset(o.marks)
			}
			s.sv.status = status
			if s.mode == armor.StatementMode && status != 'I' {
				s.fail(errBlock, out)
				return 0
			}
			if status == 'I' {
				s.mayFall = false
				s.stats.Transactions++
				s.sv.counts.Transactions++
			}
			if s.atRest() && s.mustAsk() {
				s.kept.held = true
				return h.Size()
			}
			out.ToClient.pass(b[:h.Size()])
			return h.Size()
		}
		s.undo(o) // it was not answered
	}
	if s.mode == armor.SessionMode && s.sv.suspect { // it answers a Sync that a COPY has not ignored
		s.sv.status, s.aborted = status, false
		out.ToClient.pass(b[:h.Size()])
		return h.Size()
	}
	s.broken(errUnasked, out)
	return 0
}
