package core

import (
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Pins bounds how many clients of a pool keep a server connection for what cannot follow them.
// The methods are called in events of the session's, and must not block.
type Pins interface {
	// Take asks for room for one more, and reports whether there was any.
	Take() bool
	// Holds tells for what the client keeps its server connection, when that has changed;
	// empty: for nothing, yet or any more.
	Holds(what string)
	// Give gives the room back.
	Give()
}

// pins are what a client keeps a server connection for.
type pins uint8

// numbering: the last numbers of sequences, which the client asks for. It is taken where there
// is room, and never refused.
const numbering pins = 1 << 5

// pinNames are the others, from the lowest bit on.
var pinNames = [...]string{"temporary table", "LISTEN", "advisory lock", "WITH HOLD cursor", "PREPARE"}

// pinning are the marks of a text that makes one of those.
const pinning = makesTemp | listens | locks | holds | preparesSQL

// fixed are those that PostgreSQL can be asked for.
func (p pins) fixed() pins { return p &^ numbering }

func (p pins) String() string {
	var names []string
	for i, name := range pinNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if p&numbering != 0 {
		names = append(names, "sequence")
	}
	return strings.Join(names, ", ")
}

// Pinned says for what the client keeps its server connection; empty: for nothing.
func (s *Session) Pinned() string { return s.kept.pins.String() }

// pinned reports whether the client keeps its server connection for what it has left there.
func (s *Session) pinned() bool {
	if s.keeps() {
		s.pinNumbers()
		return s.kept.pins != 0
	}
	return s.onState == armor.PinState && s.sv.dirty
}

// mayPin reports whether a text may run that has the client keep its server connection: it
// does already, or there is room.
func (s *Session) mayPin(m marks) bool {
	return !s.keeps() || m&pinning == 0 || s.takePin()
}

func (s *Session) takePin() bool {
	if !s.kept.counted {
		s.kept.counted = s.bound == nil || mutant == PinsUnbound || s.bound.Take()
	}
	return s.kept.counted
}

// keepPins notes for what the client keeps its server connection by PostgreSQL's word.
func (s *Session) keepPins(a answer, out *Output) {
	have := s.kept.pins.fixed()
	if a.pinsSaid {
		have = a.pins
	}
	if have != 0 && !s.takePin() {
		s.lose("a session's "+have.String(), "As many clients keep a server connection of this node as the pool's maxPinned allows.", out)
		have = 0
	}
	s.setPins(have | s.kept.pins&numbering)
}

// pinNumbers has a client that asks for the last numbers of sequences keep the server
// connection that it has drawn them on.
func (s *Session) pinNumbers() {
	draws := s.numbered && s.sv.numbers == s.id
	switch {
	case !draws:
		s.setPins(s.kept.pins.fixed())
	case s.kept.pins&numbering == 0 && s.takePin():
		s.setPins(s.kept.pins | numbering)
	}
}

// setPins notes what pins the client, and gives back its room when nothing does.
func (s *Session) setPins(p pins) {
	changed := p != s.kept.pins
	s.kept.pins = p
	if s.bound != nil && changed {
		s.bound.Holds(p.String())
	}
	if p == 0 && s.kept.counted && mutant != RoomLost {
		if s.kept.counted = false; s.bound != nil {
			s.bound.Give()
		}
	}
}

// errCrowded is for a command that would have the client keep a server connection when there
// is no room for that.
var errCrowded = &pgwire.Error{
	Severity: pgwire.SeverityError, Code: "53300", Message: "no more clients of this pool may keep a server connection",
	Detail: "Temporary tables, LISTEN, session advisory locks, WITH HOLD cursors and PREPARE have a client keep one, until they are gone.",
	Hint:   "End them where they are not needed any more, raise the pool's maxPinned, or use a pool in session mode.",
}
