package core

import (
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// A fence is what stands between two clients of one server connection: the reset, where one
// is due, and the settings of the client to come. It is sent ahead of that client's first
// bytes, in the same write, so that it costs no round trip:
//
//	Parse, Bind, Execute   DISCARD ALL
//	Parse, Bind, Execute   SELECT set_config(…), …
//	Query                  an empty one
//	                       the client's own bytes
//
// There is no Sync before the Query. When the fence holds, the Query ends what was begun, and
// the client's bytes meet a connection that is idle. When it fails, PostgreSQL skips
// everything up to a Sync, and no Query: what the client has sent was not looked at, and can
// be sent again on another connection (PostgreSQL, "Extended Query": "issues ErrorResponse,
// then reads and discards messages until a Sync is reached").

// fencedLimit bounds what is sent behind a fence before that has held, in bytes: it is kept.
const fencedLimit = 32 << 10

// fenceTries is how many server connections in a row may fail to be fenced.
const fenceTries = 3

// ResetQuery takes off a server connection what a client may have left there.
const ResetQuery = "DISCARD ALL"

// fence is what a session keeps of one.
type fence struct {
	up    bool  // it was sent and not yet answered
	tries int   // that have failed
	stats Stats // of the session, when it was sent
}

// Granted lends a server connection to the session. In session mode it may be called
// before the first bytes; else it answers Want.
func (s *Session) Granted(sv *Server, out *Output) {
	out.reset()
	s.sv, s.waiting = sv, false
	if s.mode == armor.SessionMode { // its login has the settings
		sv.owner, sv.user = s.owner, s.id
		return
	}
	var texts [3]string
	fences := texts[:0]
	if sv.MustReset(s.owner, s.id, s.isolation) {
		fences = append(fences, ResetQuery)
		sv.wipe()
	}
	if s.numbered && s.foreignNumbers() {
		fences = append(fences, forgetNumbers)
		sv.numbers = 0
	}
	if set := turn(sv.settings, s.settings, sv.given); set != "" {
		fences = append(fences, set)
	}
	sv.settings, sv.owner, sv.user = s.settings, s.owner, s.id
	if len(fences) == 0 {
		s.tell(out)
		return
	}
	s.fence.up, s.fence.stats = true, s.stats
	sv.unnamedOwner = 0
	for _, text := range fences {
		out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendExtended(b, text) })
	}
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendQuery(b, "") })
	sv.owed.push(op{kind: opFence})
}

// MustReset reports whether a client may not meet what the one before it has left, whatever
// that was. A fence sees to it, but not where the connection was given something: see Given.
func (sv *Server) MustReset(owner string, id uint64, isolation armor.Isolation) bool {
	switch {
	case mutant == IsolationOff || sv.user == 0 || sv.user == id:
		return false
	case isolation == armor.NoIsolation:
		return false
	case isolation == armor.IsolatedClients:
		return true
	}
	return sv.owner != owner
}

// behindFence returns the part of b that may be sent before the fence has held.
func (s *Session) behindFence(b []byte) []byte {
	if !s.fence.up || s.sv == nil {
		return b
	}
	return b[:min(len(b), fencedLimit-len(s.sv.fenced))]
}

// fenced keeps what was sent behind a fence, and has the rest wait for it.
func (s *Session) fenced(sent []byte, waits bool, out *Output) {
	if s.fence.up && s.sv != nil {
		s.sv.fenced = append(s.sv.fenced, sent...)
		if waits && out.Server == Keep {
			out.Server, out.Need = Wait, 0
		}
	}
}

// fenceHeld tells the client what has changed since it was told last.
func (s *Session) fenceHeld(out *Output) {
	s.fence.up, s.fence.tries = false, 0
	s.sv.fenced = kept(s.sv.fenced)
	s.tell(out)
}

// kept returns an array to be used again, unless it is large.
func kept(b []byte) []byte {
	if cap(b) > 4<<10 {
		return nil
	}
	return b[:0]
}

// fenceFailed has the client's bytes sent again on another connection, unless it is the
// client's own settings that PostgreSQL refuses, or it was tried often enough.
func (s *Session) fenceFailed(e pgwire.Error, out *Output) {
	s.fence.up = false
	if s.fence.tries++; s.fence.tries == fenceTries || refusesSetting(e) {
		s.fail(settingsError(e), out)
		return
	}
	s.takeBack()
	s.stats = s.fence.stats
	s.cycle, s.behind, s.risky, s.doubt = false, false, false, 0
	s.copying, s.both, s.data, s.early = false, false, false, false
	s.clientLeft, s.clientDrop = 0, false
	out.Server, out.Again = Retry, s.sv.fenced
	s.sv, s.inquiry = nil, inquiry{}
}

func settingsError(e pgwire.Error) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: e.Code,
		Message: "the session's settings could not be put in force: " + e.Message, Hint: e.Hint}
}

// takeBack undoes what was noted of all that PostgreSQL has skipped, the last first.
func (s *Session) takeBack() {
	for _, o := range slices.Backward(s.sv.owed.ops[s.sv.owed.head:]) {
		s.undo(o)
	}
	for !s.sv.owed.empty() {
		s.sv.owed.pop()
	}
}

// refusesSetting reports whether an error is about a setting itself: its value, its name,
// or the right to set it.
func refusesSetting(e pgwire.Error) bool {
	return len(e.Code) == 5 && (e.Code[:2] == "22" || e.Code[:2] == "42")
}

// tell sends the client what the server connection reports and the client was not told, and
// takes it for what it knows.
func (s *Session) tell(out *Output) {
	sv := s.sv
	if sv.params == s.params || sv.matched == s.params {
		return
	}
	news := false
	for name, value := range sv.params.All() {
		if told, _ := s.params.Get(name); told != value {
			news = true
			out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendParameterStatus(b, name, value) })
		}
	}
	if news {
		s.params = sv.params
	}
	sv.matched = s.params
}

// tellOf sends the client one value, if it was told another: what PostgreSQL reports may be no
// news to the client, as a RESET and what follows it are not.
func (s *Session) tellOf(name, value string, out *Output) {
	if told, _ := s.params.Get(name); told != value {
		s.params = s.params.With(name, value)
		out.ToClient.compose(func(b []byte) []byte { return pgwire.AppendParameterStatus(b, name, value) })
	}
}
