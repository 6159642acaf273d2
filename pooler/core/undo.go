package core

import (
	"slices"

	"github.com/armordb/armordb/pooler/pgwire"
)

// After an error PostgreSQL skips what comes before the next Sync: what was noted of that when
// it was sent is taken back here.

// unfits reports whether an error may mean that what the server connection has prepared is not
// fit to be run any more: its result has changed, it is gone, or what it is made of is.
func unfits(code string) bool { return code == "0A000" || code == "26000" || code == "XX000" }

// skipOwed takes off the queue what will not be answered after an error.
func (s *Session) skipOwed(e pgwire.Error) {
	if s.sv.owed.empty() {
		return
	}
	if o := s.sv.owed.first(); o.name != nil && unfits(e.Code) {
		s.sv.prepared.markStale(o.name.st.key)
	}
	switch s.sv.owed.first().kind {
	case opQuery, opFunction, opSync:
		return // ReadyForQuery comes by itself
	}
	for _, o := range slices.Backward(s.sv.owed.untilSync()) { // what was noted last is taken back first
		s.undo(o)
	}
	s.sv.owed.dropUntilSync()
	s.aborted = s.sv.owed.empty()
}

// undo takes back what was noted when a message was sent that PostgreSQL has skipped
// or refused.
func (s *Session) undo(o op) {
	if o.marks&refused != 0 || mutant == UndoForgotten {
		return
	}
	switch o.kind {
	case opParse:
		if o.name == nil {
			s.unprepareUnnamed(o)
			return
		}
		if s.names[o.name.name] == o.name {
			s.forget(o.name.name)
		}
		s.unprepare(o)
	case opParseAhead:
		if o.st == nil {
			s.unprepareUnnamed(o)
			return
		}
		s.unprepare(o)
	case opCloseAhead:
		if o.st != nil {
			s.sv.prepared.add(o.st.key, s.sv.nameOf(o.st), 0)
		}
	case opClosed, opCloseNone:
		s.reopen(o.name)
	}
}

// unprepareUnnamed forgets the unnamed statement, unless the client has sent another
// since.
func (s *Session) unprepareUnnamed(o op) {
	if o.turn != s.unnamed.turn {
		return
	}
	s.sv.unnamedOwner = 0
	s.unnamed.kept = s.unnamed.kept && o.kind == opParseAhead
}

// unprepare takes back that a statement was prepared. Whether PostgreSQL has closed the
// one that was to be replaced is not known.
func (s *Session) unprepare(o op) {
	switch {
	case o.st == nil:
	case o.marks&anew != 0:
		s.sv.prepared.add(o.st.key, s.sv.nameOf(o.st), 0)
		s.sv.prepared.markStale(o.st.key)
	default:
		s.sv.prepared.remove(o.st.key)
	}
}

// reopen takes back a Close that PostgreSQL would have skipped.
func (s *Session) reopen(n *named) {
	switch {
	case n == nil:
	case s.names[n.name] == nil:
		s.names[n.name] = n
	default:
		s.statements.release(n.st)
	}
}
