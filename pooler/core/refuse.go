package core

import (
	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// A command that is refused because it would leave session state behind must fail as
// PostgreSQL's own do: in its turn, with the transaction aborted and the rest of a
// pipeline skipped. So PostgreSQL is sent something in its place that is sure to fail, and
// its error is put into our words.

// refusedText is what PostgreSQL is sent, and may log.
const refusedText = "armor: a command that leaves session state behind is refused"

// refusedName is a statement's name that never comes to exist.
const refusedName = statementPrefix + "refused"

// syntaxError is what PostgreSQL says to refusedText.
const syntaxError = "42601"

var errState = &pgwire.Error{
	Severity: pgwire.SeverityError, Code: "0A000", Message: "this pool refuses commands that leave session state behind",
	Hint: "Use SET LOCAL inside of a transaction, or a pool in session mode.",
}

// errStateLeft is for a command whose words did not show that it leaves state behind. It
// has run; what it did ends with the server connection, unless it was committed.
var errStateLeft = &pgwire.Error{
	Severity: pgwire.SeverityFatal, Code: errState.Code, Message: errState.Message,
	Detail: "This one was found out only when it had run.", Hint: errState.Hint,
}

// refusing reports whether commands that leave session state behind are not to be sent.
func (s *Session) refusing() bool {
	return s.onState == armor.RefuseState && s.mode != armor.SessionMode
}

// refuses returns the marks of what is sent in the place of a query that may not run; none if it
// may.
func (s *Session) refuses(m marks, seen bool) marks {
	switch {
	case !seen:
	case s.refusing() && m&leavesBehind != 0:
		return refused
	case !s.mayPin(m):
		return refused | crowded
	}
	return 0
}

func (s *Session) refuseQuery(h pgwire.Header, m marks, out *Output) int {
	s.dropUnnamed()
	s.sv.unnamedOwner = 0
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendQuery(b, refusedText) })
	s.sv.owed.push(op{kind: opQuery, marks: m})
	return h.Size()
}

// refuseParse is refuseQuery for a Parse. PostgreSQL forgets the unnamed statement for it
// if it would have taken its place.
func (s *Session) refuseParse(h pgwire.Header, name []byte, out *Output) int {
	if len(name) == 0 {
		s.dropUnnamed()
	}
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendParse(b, refusedName, refusedTail) })
	s.sv.owed.push(op{kind: opParse, marks: refused})
	return h.Size()
}

// refusedTail is the rest of a Parse message behind the name: the text, and no types.
var refusedTail = append([]byte(refusedText), 0, 0, 0)

// noStatement is what PostgreSQL says to a Bind of refusedName.
const noStatement = "26000"

// isRefusal reports whether an error answers what was sent in the place of a refused
// command.
func (s *Session) isRefusal(e pgwire.Error) bool {
	if s.sv.owed.empty() || s.sv.owed.first().marks&refused == 0 {
		return false
	}
	return e.Code == syntaxError || s.due(opBind) && e.Code == noStatement
}

// refusalDue is what the client is told of it.
func (s *Session) refusalDue() *pgwire.Error {
	switch {
	case s.sv.owed.first().marks&crowded != 0:
		return errCrowded
	case s.due(opBind):
		return errRevalidate
	}
	return errState
}
