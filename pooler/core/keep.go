package core

import (
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Under armor.KeepState a client finds its session's state again in its next transaction,
// wherever that runs. A text that may have changed any has PostgreSQL asked when the
// transaction is over, before the client is told that it is: what is set is remembered, and
// what cannot follow the client has it keep the server connection (pins.go).

// keeping is what a session knows of the state that it keeps for its client.
type keeping struct {
	touched reading  // by the texts that were sent since PostgreSQL was last asked
	undone  bool     // a transaction, or a part of one, was rolled back since
	over    bool     // more was named since than can be kept
	named   []string // by texts of the client's: the parameters that PostgreSQL does not list
	pins    pins     // for what the client keeps its server connection
	counted bool     // among those who do: see Pins

	phase  askPhase
	held   bool // ReadyForQuery waits for the answer
	tries  int  // that have failed
	answer answer
}

// askPhase is how far the asking is.
type askPhase uint8

const (
	asksNothing askPhase = iota
	askDue               // the driver was told: see Ask
	asked
)

// askTries is how often PostgreSQL is asked: a cancel request that comes late may hit the
// question.
const askTries = 3

// keptLimit bounds what is kept of a client's settings, their names included, in bytes: it is
// in memory for as long as the session lives, and sent whenever another server connection is
// lent to it.
const keptLimit = 32 << 10

// keeps reports whether the client's state is kept.
func (s *Session) keeps() bool { return s.onState == armor.KeepState && s.mode != armor.SessionMode }

// touch notes what a text may change. What PostgreSQL reports need not be asked for, unless it was
// reset: the value does not tell whether what the startup packet said is to be in force again.
func (k *keeping) touch(r reading, startup *Settings) {
	k.touched.marks |= r.marks
	for _, name := range r.names {
		if _, first := startup.get(name); isTracked(name) && (r.marks&resets == 0 || !first) {
			continue
		}
		k.touched.names = k.note(k.touched.names, name)
		if isUnlisted(name) {
			k.named = k.note(k.named, name)
		}
	}
}

// note adds a name, unless it is there or there are too many.
func (k *keeping) note(names []string, name string) []string {
	switch {
	case slices.Contains(names, name):
	case len(names) == nameCount:
		k.over = true
	default:
		names = append(names, name)
	}
	return names
}

// unsure reports whether PostgreSQL has to be asked what is in force. A client that keeps its
// server connection has its settings there: it is asked when it may have let go of what it
// keeps the connection for.
func (k *keeping) unsure() bool {
	if k.pins.fixed() != 0 {
		return k.touched.marks&(unmakes|mayChange|resetsAll) != 0
	}
	return len(k.touched.names) > 0 || k.touched.marks&(mayChange|resetsAll|pinning) != 0 || k.fell()
}

// fell reports whether a RESET may have been rolled back: it is not known then what is in force.
func (k *keeping) fell() bool { return k.undone && k.touched.marks&resets != 0 }

// mustAsk reports whether the transaction that has just ended may have changed something that
// PostgreSQL does not report.
func (s *Session) mustAsk() bool { return s.keeps() && s.kept.unsure() && mutant != AskingOff }

// Ask answers the wish Ask: it sends PostgreSQL the question.
func (s *Session) Ask(out *Output) {
	out.reset()
	s.ask(out)
}

func (s *Session) ask(out *Output) {
	if s.over || s.sv == nil || s.kept.phase != askDue {
		return
	}
	s.kept.phase, s.kept.answer = asked, answer{full: s.kept.full()}
	sql := s.kept.question(s.sv.given.unlisted(s.keepSettings))
	out.ToServer.compose(func(b []byte) []byte { return pgwire.AppendQuery(b, sql) })
	s.sv.unnamedOwner = 0 // a simple query drops it
	s.sv.owed.push(op{kind: opAsk})
	s.sets = false
}

// answer is what PostgreSQL has said.
type answer struct {
	full     bool   // of all that it lists
	settings []pair // that are set, as far as they were asked for
	size     int    // of them, in bytes
	timeOut  string // the client's statement_timeout, where the question had none
	lost     bool   // some were too long
	pins     pins
	pinsSaid bool
	failed   bool
}

// answerRow takes a row of the answer. One that is too long is told and dropped.
func (s *Session) answerRow(h pgwire.Header, b []byte, out *Output) int {
	if h.Size() > 3*keptLimit {
		s.kept.answer.lost = true
		return s.forward(h, b, out)
	}
	if len(b) < h.Size() {
		out.Need = h.Size()
		return 0
	}
	values, err := pgwire.RowFields(body(h, b))
	if err == nil {
		err = s.kept.answer.take(values)
	}
	if err != nil {
		s.broken(err, out)
		return 0
	}
	return h.Size()
}

// learn takes the answer, and tells the client that its transaction is over.
func (s *Session) learn(out *Output) {
	k := &s.kept
	a := k.answer
	k.phase, k.answer = asksNothing, answer{}
	if a.failed {
		if k.tries++; k.tries < askTries {
			return // it is asked again
		}
		s.lose("what this session has set", "PostgreSQL could not be asked for it.", out)
	} else {
		s.adopt(a)
		if a.lost || k.over {
			s.lose("a setting", "Of a session's settings 64 names and 32 KiB are kept.", out)
		}
	}
	s.keepPins(a, out)
	k.touched, k.undone, k.over, k.tries = reading{}, false, false, 0
	if s.sv.settings == s.settings { // else it is told when that is so
		s.tell(out)
	}
	s.releaseReady(out)
}

// adopt notes what is in force on the server connection, and is to be in force wherever the
// client comes to. What it has said in its startup packet is what RESET leads to.
func (s *Session) adopt(a answer) {
	touched := &s.kept.touched
	first, have, want := s.startup.values(), s.sv.settings.values(), s.settings.values()
	if a.full {
		have, want = map[string]string{}, s.startup.values()
	}
	for _, name := range touched.names {
		delete(have, name)
		delete(want, name)
		if value, asked := first[name]; asked {
			want[name] = value
		}
	}
	login, _ := s.sv.base.Get("session_authorization")
	var set []string
	for _, p := range a.settings {
		if p.isUnset(login, touched.marks&sets != 0 && slices.Contains(touched.names, p.name)) {
			continue
		}
		set = append(set, p.name)
		if _, asked := first[p.name]; !asked && s.sv.given.has(p) {
			continue // nobody's but the connection's
		}
		have[p.name], want[p.name] = p.value, p.value
	}
	s.missGiven(a.full, set)
	s.sv.settings, s.settings = NewSettings(have), NewSettings(want)
	if slices.Equal(s.sv.settings.list(), s.settings.list()) {
		s.settings = s.sv.settings
	}
}

// isUnset reports whether a value means that a parameter is not set. One with a dot in its
// name has an empty value ever after it was set once, even if only for a transaction.
func (p pair) isUnset(login string, setNow bool) bool {
	switch p.name {
	case "role":
		return p.value == "none"
	case "session_authorization":
		return p.value == login
	}
	return p.value == "" && !setNow && isUnlisted(p.name)
}

// releaseReady tells the client what has waited for the answer.
func (s *Session) releaseReady(out *Output) {
	if s.kept.held {
		s.kept.held = false
		s.ready('I', out)
	}
}

// plainResets are the marks of a text that does nothing but lead back to where the session
// began.
const plainResets = resetsAll | resets | unmakes | harmlessSet | setsLocal

// wasPlainReset notes that a query with these marks has reset everything, where that is sure
// without a question: nothing else was sent. Pools of drivers send one whenever they take a
// connection back.
func (s *Session) wasPlainReset(m marks) {
	k := &s.kept
	if k.pins.fixed() != 0 || k.undone || m&resetsAll == 0 || (m|k.touched.marks)&^plainResets != 0 {
		return
	}
	s.sv.strip()
	s.sv.settings = s.sv.settings.who(nil)
	s.settings = s.settings.who(s.startup)
	k.touched, k.over = reading{}, false
}

// who returns other settings with who the session is of these: RESET ALL leaves that.
func (s *Settings) who(others *Settings) *Settings {
	for _, name := range whoNames {
		if value, set := s.get(name); set {
			others = others.with(name, value)
		}
	}
	return others
}

// startAnew notes that DISCARD ALL has left nothing.
func (s *Session) startAnew(out *Output) {
	k := &s.kept
	s.settings = s.startup
	k.touched, k.undone, k.over = reading{}, false, false
	s.keepPins(answer{pinsSaid: true}, out)
}

// lose says that something is not kept, and has the server connection reset.
func (s *Session) lose(what, why string, out *Output) {
	s.sv.dirty = true
	out.ToClient.compose(func(b []byte) []byte {
		return pgwire.AppendNotice(b, &pgwire.Error{
			Severity: pgwire.SeverityWarning, Code: "01000", Message: what + " is not kept between transactions", Detail: why,
			Hint: "Use a pool in session mode.",
		})
	})
}
