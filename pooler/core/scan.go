package core

import "slices"

// marks are what the text of a query tells about the session state that running it may
// touch, and what else is noted of a message that was sent.
type marks uint32

const (
	// harmlessSet: it has SET commands, which leave nothing to be reset: SET LOCAL, SET
	// TRANSACTION, or of parameters that are tracked.
	harmlessSet marks = 1 << iota
	// refused: it was sent in the place of a command that is refused.
	refused
	// crowded: and it is, as too many clients keep a server connection already.
	crowded
	// anew: the statement was closed to be prepared again.
	anew
	// begins: it begins a transaction block.
	begins
	// commits: it ends a transaction, so that losing its reply leaves the outcome
	// open.
	commits
	// forgets: it may drop prepared statements.
	forgets
	// sets: it sets a parameter for the session.
	sets
	// setsUntracked: and it is not among those that PostgreSQL reports, which are
	// tracked anyhow. A SET … TO DEFAULT counts too.
	setsUntracked
	// setsByCall: and no command tag shows it.
	setsByCall
	// setsLocal: it sets one for the transaction.
	setsLocal
	// resets: it resets a parameter, and resetsAll all of them.
	resets
	resetsAll
	// mayChange: it may set parameters that it does not name.
	mayChange
	// runsCode: it runs code that is not in the text, which may do anything.
	runsCode
	// makesTemp: it makes a temporary object.
	makesTemp
	// listens: it begins to listen.
	listens
	// locks: it takes an advisory lock for the session.
	locks
	// holds: it declares a cursor that outlives the transaction.
	holds
	// preparesSQL: it prepares a statement by PREPARE.
	preparesSQL
	// unmakes: it may end one of those, or drop one.
	unmakes
	// usesNumbers: it asks for the last value of a sequence, and advances: it may draw
	// one, by itself or as the default of a column.
	usesNumbers
	advances

	endOfMarks
)

const (
	// leavesState: it may make something that outlives the transaction and that no
	// command tag shows.
	leavesState = makesTemp | locks | holds | setsByCall
	// leavesBehind: it leaves session state, and is refused where that is.
	leavesBehind = leavesState | setsUntracked | listens | preparesSQL
	// unknownText are the marks of a text that is not looked at: all that may be.
	unknownText = endOfMarks - 1 - harmlessSet - refused - crowded - anew
)

// scanLimit is how much of a text is looked at, in bytes. A longer one is taken for
// unknownText.
const scanLimit = 64 << 10

// reading is what the text of a query tells.
type reading struct {
	marks marks
	// names are the parameters that it sets or resets by name for the session, in lower
	// case. Those of set_config are among them.
	names []string
}

// read looks at the tokens of a query. It does not parse: what runs is told by the first
// word of a statement, and by the names in front of parentheses. In doubt a mark is set,
// which costs a question or a reset that was not needed; what a function does that is
// called by a trigger, an operator or a view is not seen.
func read(text []byte) reading {
	if len(text) > scanLimit {
		return reading{marks: unknownText}
	}
	r := reader{lexer: lexer{text: text}}
	for r.statement() {
	}
	if r.sawSet && r.marks&setsUntracked == 0 {
		r.marks |= harmlessSet
	}
	if r.marks&mayChange != 0 {
		r.marks |= advances
	}
	return reading{r.marks, r.names}
}

func scan(text []byte) marks { return read(text).marks }

// reader reads one text.
type reader struct {
	lexer
	marks  marks
	names  []string
	sawSet bool
	here   position
}

// position is where a reader is in its statement.
type position struct {
	prev   token // the one before
	name   token // the last name
	schema token // and its schema, if it is dotted
	before token // what stands before that name, or before its schema
	depth  int   // of parentheses

	dotted   bool
	declares bool // it is a DECLARE, and so on
	copies   bool
	creates  bool
	temp     bool // what it creates is a temporary object
	onCommit bool // there was ON COMMIT
	indexes  bool
	updates  bool
	quiet    bool // its parentheses call nothing
	ctes     bool // it is in the list of a WITH
	loose    bool // it has parentheses that an expression may follow
}

// statement reads up to the next semicolon, and reports whether there was one.
func (r *reader) statement() bool {
	r.here = position{}
	t := r.next()
	if t.kind == word {
		r.command(t)
		t = r.next()
	}
	for !t.ends() {
		r.take(t)
		t = r.next()
	}
	if r.here.temp {
		r.marks |= makesTemp
	}
	return t.kind == ';'
}

// take looks at a token that is not the first of its statement.
func (r *reader) take(t token) {
	switch t.kind {
	case word, quotedName:
		r.look(t)
		if r.here.dotted = r.here.prev.kind == '.'; r.here.dotted {
			r.here.schema = r.here.name
		} else {
			r.here.before = r.here.prev
		}
		r.here.name = t
	case '(':
		r.open()
		r.here.depth++
	case ')':
		r.here.depth--
	}
	r.here.prev = t
}

// look looks for the few words that tell something in the middle of a statement. Their
// lengths come first, since most words are none of them.
func (r *reader) look(t token) {
	if r.here.creates && r.isTempSchema(t) && r.peek().kind == '.' {
		r.here.temp = true
	}
	switch t.end - t.start {
	case 4:
		r.lookShort(t)
	case 6:
		r.here.updates = r.here.updates || r.is(t, "update")
		r.here.onCommit = r.here.temp && r.is(t, "commit") && r.is(r.here.prev, "on")
	case 7:
		switch {
		case r.here.updates && r.is(t, "default"):
			r.marks |= advances
		case r.is(t, "execute") && r.is(r.here.prev, "as"):
			r.marks |= mayChange | runsCode
		}
	}
	if r.here.ctes && r.here.depth == 0 && r.isVerb(t) {
		r.here.ctes = false
	}
}

func (r *reader) lookShort(t token) {
	switch {
	case r.is(t, "into"):
		r.into()
	case r.here.copies && r.here.depth == 0 && r.is(t, "from"):
		r.marks |= advances
	case r.here.declares && r.is(t, "hold") && r.is(r.here.prev, "with"):
		r.marks |= holds
	case r.here.onCommit && r.is(t, "drop"): // it is gone with the transaction
		r.here.temp = false
	}
}

// isVerb reports whether a word ends the list of a WITH.
func (r *reader) isVerb(t token) bool {
	var space [6]byte
	switch string(r.fold(space[:0], t)) {
	case "select", "insert", "update", "delete", "values", "merge", "table":
		return t.kind == word
	}
	return false
}

// isTempSchema reports whether a name is that of a session's schema of temporary objects.
func (r *reader) isTempSchema(t token) bool {
	text := r.of(t)
	if t.kind == quotedName {
		text = text[1:]
	}
	return t.isName() && hasPrefix(text, "pg_temp")
}

// into looks at what follows INTO.
func (r *reader) into() {
	if r.is(r.here.prev, "insert") || r.is(r.here.prev, "merge") {
		r.marks |= advances
		return
	}
	behind := r.lexer
	if !behind.takes("local") {
		behind.takes("global")
	}
	switch {
	case behind.takes("temp"), behind.takes("temporary"): // which may also be the name of a table
		if t := behind.next(); t.isName() && !r.is(t, "from") {
			r.marks |= makesTemp
		}
	case r.isTempSchema(behind.next()) && behind.next().kind == '.':
		r.marks |= makesTemp
	}
}

// nameCount is how many parameters one text may name; more may be any.
const nameCount = 64

// touches notes the name of a parameter. SET SESSION AUTHORIZATION ends a SET ROLE.
func (r *reader) touches(name string) {
	if name == "session_authorization" {
		r.touches("role")
	}
	switch {
	case slices.Contains(r.names, name):
	case name == "" || len(r.names) == nameCount:
		r.marks |= mayChange
	default:
		r.names = append(r.names, name)
	}
}
