package core

import (
	"errors"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// maxStatement bounds a named prepared statement, in bytes: it is kept.
const maxStatement = 16 << 20

// FromClient takes bytes from the client and returns how many it consumed. The
// driver keeps the others and feeds them again, with what has come since: when
// there are Need bytes, or after what Want or Wait asks for.
func (s *Session) FromClient(b []byte, out *Output) (n int) {
	out.reset()
	if s.kept.phase != asksNothing {
		s.ask(out)
		out.Server = Wait
		return 0
	}
	may := s.behindFence(b)
	for n < len(may) && !s.over && out.Server == Keep {
		used := s.fromClient(may[n:], out)
		if used == 0 {
			break
		}
		n += used
	}
	s.fenced(b[:n], len(may) < len(b), out)
	if s.sv != nil {
		s.sv.counts.Received += uint64(n)
	}
	if n > 0 {
		s.heard++
		if out.Server == Keep {
			s.settle(out)
		}
		if out.Server == Ask {
			s.ask(out)
			out.Server = Keep
		}
	}
	return n
}

// fromClient deals with the rest of a message, or with the head of the next one and
// as much of its body as is there. It consumes nothing when something is missing.
func (s *Session) fromClient(b []byte, out *Output) int {
	if s.clientLeft > 0 {
		n := min(s.clientLeft, len(b))
		s.clientLeft -= n
		if !s.clientDrop {
			out.ToServer.pass(b[:n])
		}
		return n
	}
	if len(b) < pgwire.HeaderSize {
		out.Need = pgwire.HeaderSize
		return 0
	}
	h, err := pgwire.ClientHeader(b)
	if err == nil && h.Type == pgwire.Password {
		err = errUnexpectedPassword
	}
	if err != nil {
		s.protocolError(err, out)
		return 0
	}
	if s.refusal != nil || s.skipping || s.aborted {
		if used, done := s.skip(h, b, out); done {
			return used
		}
	}
	return s.message(h, b, out)
}

var errUnexpectedPassword = errors.New("invalid frontend message type 112")

// skip deals with messages that PostgreSQL would not look at: after an error those up
// to the next Sync, or the one that could not be given a server connection.
func (s *Session) skip(h pgwire.Header, b []byte, out *Output) (used int, done bool) {
	simple := h.Type == pgwire.Query || h.Type == pgwire.Function
	switch {
	case h.Type == pgwire.Terminate, h.Type == pgwire.Sync && s.aborted:
		return 0, false
	case s.refusal != nil:
		s.say(s.refusal, out)
		s.refusal, s.skipping, s.cycle = nil, !simple, false
		if h.Type == pgwire.Sync {
			s.skipping, simple = false, true
		}
		if simple {
			s.ready('I', out)
		}
	case h.Type == pgwire.Sync: // skipping
		s.skipping = false
		s.ready('I', out)
	}
	return s.drop(h, b), true
}

func (s *Session) say(e *pgwire.Error, out *Output) {
	out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendError(b, e) })
}

func (s *Session) ready(status byte, out *Output) {
	out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendReady(b, status) })
}

// message deals with the head of a message.
func (s *Session) message(h pgwire.Header, b []byte, out *Output) int {
	s.data = s.data && (h.Type == pgwire.CopyData || h.Type == pgwire.Flush || h.Type == pgwire.Sync)
	switch h.Type {
	case pgwire.Terminate:
		s.end(out)
		out.Client = Hangup
		return h.Size()
	case pgwire.CopyData, pgwire.CopyDone, pgwire.CopyFail:
		return s.copyMessage(h, b, out)
	case pgwire.Flush:
		if s.sv == nil || s.sv.owed.empty() {
			return s.drop(h, b)
		}
		return s.pass(h, b, out)
	case pgwire.Sync:
		return s.sync(h, b, out)
	case pgwire.Query:
		return s.query(h, b, out)
	case pgwire.Function:
		if !s.lent(out) {
			return 0
		}
		s.stats.Queries++
		s.touches(reading{marks: unknownText}) // whatever it called
		s.sv.owed.push(op{kind: opFunction})
		return s.pass(h, b, out)
	}
	return s.extended(h, b, out)
}

// pass forwards the head as it is, and the body as far as it is there.
func (s *Session) pass(h pgwire.Header, b []byte, out *Output) int {
	n := min(h.Size(), len(b))
	out.ToServer.pass(b[:n])
	s.clientLeft, s.clientDrop = h.Size()-n, false
	return n
}

// drop does the same without forwarding.
func (s *Session) drop(h pgwire.Header, b []byte) int {
	n := min(h.Size(), len(b))
	s.clientLeft, s.clientDrop = h.Size()-n, true
	return n
}

// whole reports whether the message has arrived to its end, and asks for the rest if
// it has not.
func (s *Session) whole(h pgwire.Header, b []byte, out *Output) bool {
	if len(b) < h.Size() {
		out.Need = h.Size()
		return false
	}
	return true
}

func body(h pgwire.Header, b []byte) []byte { return b[pgwire.HeaderSize:h.Size()] }

// lent reports whether there is a server connection to talk to and room for one more
// reply, and asks for it if not. In statement mode there is none before it is known
// whether what was sent has begun a block: a COMMIT sent ahead must not end it.
func (s *Session) lent(out *Output) bool {
	switch {
	case s.sv == nil:
		out.Server, s.waiting = Want, true
		return false
	case s.sv.owed.len() >= owedLimit, s.mode == armor.StatementMode && s.sv.owed.endsCycle():
		out.Server = Wait
		return false
	}
	return true
}

// copyMessage forwards COPY data as long as PostgreSQL may want it. What is still
// on its way when a COPY has failed is dropped, as PostgreSQL itself does.
func (s *Session) copyMessage(h pgwire.Header, b []byte, out *Output) int {
	if s.sv == nil || s.sv.owed.empty() && !s.copying {
		return s.drop(h, b)
	}
	s.data = h.Type == pgwire.CopyData
	if !s.data {
		if s.copying {
			s.copying = false
		} else {
			s.sv.owed.push(op{kind: opCopyEnd})
		}
	}
	return s.pass(h, b, out)
}

func (s *Session) sync(h pgwire.Header, b []byte, out *Output) int {
	if s.sv == nil {
		s.cycle = false
		s.ready('I', out)
		return h.Size()
	}
	switch {
	case s.copying && s.mode == armor.SessionMode: // ignored by PostgreSQL, unless the COPY has failed
		s.sv.suspect = true
		return s.pass(h, b, out)
	case s.copying: // the queue of what is owed must be right here
		return s.drop(h, b)
	case s.data && !s.sv.owed.empty(): // ignored only if there is a COPY, and for as long
		out.ToServer.compose(pgwire.AppendFlush)
		out.Server = Wait
		return 0
	case !s.lent(out):
		return 0
	}
	s.data = false
	s.cycle, s.aborted, s.inquiry = false, false, inquiry{}
	s.sv.owed.push(op{kind: opSync})
	if s.risky {
		s.risky, s.doubt = false, s.sv.owed.ends()
	}
	return s.pass(h, b, out)
}

// query forwards a simple query. It is looked at when it is short enough to be here
// as a whole; a long one passes as it comes.
func (s *Session) query(h pgwire.Header, b []byte, out *Output) int {
	long := h.Body > scanLimit
	if !long && !s.whole(h, b, out) {
		return 0
	}
	o, told := op{kind: opQuery}, reading{marks: unknownText}
	if !long {
		text, err := pgwire.QueryText(body(h, b))
		if err != nil {
			s.protocolError(err, out)
			return 0
		}
		told = read(text)
		if s.mode != armor.SessionMode && told.marks&forgets != 0 && s.deallocate(text, out) {
			return h.Size()
		}
	}
	if !s.lent(out) {
		return 0
	}
	if m := s.refuses(told.marks, !long); m != 0 {
		return s.refuseQuery(h, m, out)
	}
	o.marks = told.marks
	s.reinstate(out)
	s.asksNumbers(o.marks, out)
	s.stats.Queries++
	s.touches(told)
	s.dropUnnamed() // as PostgreSQL does
	s.sv.unnamedOwner = 0
	s.risky = s.risky || s.cycle // it is skipped if something before it has failed
	s.sv.owed.push(o)
	if o.marks&forgets != 0 {
		s.doubt = s.sv.owed.ends()
	}
	return s.pass(h, b, out)
}

// deallocate answers DEALLOCATE of a statement that was prepared by Parse, which the
// server has under another name. Some drivers close their statements this way.
func (s *Session) deallocate(text []byte, out *Output) bool {
	if len(s.names) == 0 {
		return false
	}
	name, _, ok := deallocated(text)
	if !ok || s.names[name] == nil || s.sv != nil && (s.sv.status == 'E' || !s.sv.owed.empty()) {
		return false
	}
	s.forget(name)
	status := byte('I')
	if s.sv != nil {
		status = s.sv.status
	}
	out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendCommandComplete(b, "DEALLOCATE") })
	s.ready(status, out)
	return true
}
