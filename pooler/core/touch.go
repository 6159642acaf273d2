package core

import (
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// What a client has set is known by what PostgreSQL reports of it: which parameter has which
// value now. Whatever else its texts may have done is asked for (keep.go), or undone by a reset.

// setsAny are the marks of what may change a parameter.
const setsAny = sets | setsByCall | resets | resetsAll | mayChange

// touches notes what a text that is sent may do to the session's state.
func (s *Session) touches(told reading) {
	m := told.marks
	if s.keeps() {
		s.kept.touch(told, s.startup)
	} else {
		s.sv.dirty = s.sv.dirty || m&leavesState != 0
	}
	s.sets, s.local = s.sets || m&setsAny != 0, s.local || m&setsLocal != 0
	if m&(sets|resets) == resets {
		for _, name := range told.names {
			if _, asked := s.startup.get(name); asked && isTracked(name) {
				s.ledBack = appendOnce(s.ledBack, name)
			}
		}
	}
	if m&advances != 0 {
		s.sv.numbers = s.id
	}
}

// forgetNumbers takes what another client has drawn from sequences.
const forgetNumbers = "DISCARD SEQUENCES"

// foreignNumbers reports whether lastval() and currval() would answer with another client's
// number.
func (s *Session) foreignNumbers() bool { return s.sv.numbers != 0 && s.sv.numbers != s.id }

// asksNumbers sees to it that a text that asks for the last number of a sequence is not given
// another client's: it fails with 55000 then, as in a session that has drawn none.
func (s *Session) asksNumbers(m marks, out *Output) {
	if m&usesNumbers == 0 || s.mode == armor.SessionMode {
		return
	}
	s.numbered = true
	if s.foreignNumbers() && s.sv.owed.empty() && s.sv.status != 'E' {
		s.sv.numbers = 0
		s.ahead(forgetNumbers, out)
	}
}

// ahead sends a query of our own before the client's next command.
func (s *Session) ahead(sql string, out *Output) {
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendQuery(b, sql) })
	s.sv.unnamedOwner = 0 // a simple query drops it
	s.sv.owed.push(op{kind: opReinstate})
}

// unsettable are reported parameters that no SET can change: they describe the
// server, or follow from the role, which a reset restores.
var unsettable = []string{
	"in_hot_standby", "integer_datetimes", "is_superuser", "server_encoding", "server_version", "session_authorization",
}

// attribute notes a parameter that has another value now as the client's own setting. Where no
// text can have set it, the server's configuration was changed: the client is told, and nothing
// of that is put in force elsewhere. It reports whether a RESET has led to the login's value, so
// that what the client's startup packet asked for is to be put in force instead.
func (s *Session) attribute(reported, value string) (back bool) {
	if !s.sets || s.mode == armor.SessionMode || slices.Contains(unsettable, reported) {
		return false
	}
	name := strings.ToLower(reported)
	want := s.settings.with(name, value)
	base, _ := s.sv.base.Get(reported)
	first, asked := s.startup.get(name)
	_, given := s.sv.given.get(name)
	switch {
	case given && !asked && s.wasReset && base != value: // it is led back before the next command
		s.settings = s.settings.without(name)
		s.sv.settings = s.sv.settings.with(name, value)
		return
	case base != value:
	case asked && s.wasReset:
		want, back = s.settings.with(name, first), true
	case !asked:
		want = s.settings.without(name)
	}
	if s.sv.settings = s.sv.settings.without(name); !s.wasReset {
		s.sv.settings = want
	}
	s.settings = want
	return back
}

// uncertain is the value of a parameter that may have been reset, or not: no value is like it, so that
// what a client wants is put in force.
const uncertain = "\x00"

// wereReset notes that a RESET has led to what the login had: what the startup packet said is
// to be put in force again. Of a text that sets something too it is not known here what it has
// led back.
func (s *Session) wereReset(m marks) {
	s.wasReset = true
	if m&sets == 0 {
		s.back |= m & (resets | resetsAll)
	}
	for _, p := range s.startup.list() {
		if m&(sets|resetsAll) == resetsAll {
			s.sv.settings = s.sv.settings.without(p.name)
		} else {
			s.sv.settings = s.sv.settings.with(p.name, uncertain)
		}
	}
}

// leadBack has the startup packet's parameters that were reset be in force again, also those
// that PostgreSQL has not reported since they had the login's value before.
func (s *Session) leadBack(out *Output) {
	if s.back != 0 {
		for reported, value := range s.login.All() {
			name := strings.ToLower(reported)
			first, asked := s.startup.get(name)
			if asked && (s.back&resetsAll != 0 || slices.Contains(s.ledBack, name)) {
				s.settings = s.settings.with(name, first)
				s.tellOf(reported, value, out)
			}
		}
	}
	if s.back = 0; s.sv.owed.empty() {
		s.ledBack = nil
	}
}

// wasUndone notes that a transaction, or a part of one, was rolled back.
func (s *Session) wasUndone() {
	s.back = 0
	if s.kept.undone = true; (s.mayFall || s.wasReset) && s.sv != nil {
		s.wereReset(sets)
		s.kept.touched.marks |= resets
	}
}

// reinstate puts in force what a RESET has taken away, before the client's next command.
func (s *Session) reinstate(out *Output) {
	if s.sv.settings == s.settings || s.mode == armor.SessionMode || s.cycle || s.sv.status == 'E' || !s.sv.owed.empty() {
		return
	}
	sql := turnAgain(s.sv.settings, s.settings, s.sv.given)
	if s.sv.settings = s.settings; sql != "" {
		s.mayFall = s.sv.status == 'T'
		s.ahead(sql, out)
	}
}
