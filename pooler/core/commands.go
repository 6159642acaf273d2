package core

// command looks at the first word of a statement, and at what belongs to it.
func (r *reader) command(t token) {
	r.here.prev = t
	var space [16]byte
	switch string(r.fold(space[:0], t)) {
	case "select", "insert", "delete":
	case "with":
		r.here.ctes = true
	case "update":
		r.here.updates = true
	case "set":
		r.sawSet = true
		r.set()
	case "reset":
		r.reset()
	case "begin", "start":
		r.marks |= begins
	case "commit", "end":
		r.marks |= commits
	case "create":
		r.create()
	case "alter":
		if r.takes("extension") {
			r.marks |= mayChange
		}
	case "copy":
		r.here.copies, r.here.prev = true, token{}
	case "declare":
		r.here.declares = true
	case "prepare":
		r.prepare()
	case "listen":
		r.marks |= listens
	case "deallocate":
		r.marks |= forgets | unmakes
	case "discard":
		r.discard()
	case "explain":
		r.explain()
	default:
		r.rarely(string(r.fold(space[:0], t)))
	}
}

// rarely is command for the rest.
func (r *reader) rarely(command string) {
	switch command {
	case "do", "call", "execute":
		r.marks |= mayChange | runsCode
		r.here.prev = token{} // the name that follows is accounted for
	case "load":
		r.marks |= mayChange
	case "unlisten", "close":
		r.marks |= unmakes
	case "drop":
		r.marks |= unmakes
		r.here.quiet = true
	case "grant", "revoke", "comment", "vacuum", "analyze", "analyse":
		r.here.quiet = true
	}
}

// prepare tells PREPARE of a statement from PREPARE TRANSACTION. A statement may be
// called transaction.
func (r *reader) prepare() {
	r.here.prev = token{}
	behind := r.lexer
	if behind.takes("transaction") && !behind.takes("as") && behind.next().kind != '(' {
		r.marks |= commits
		return
	}
	r.marks |= preparesSQL
}

func (r *reader) discard() {
	r.marks |= unmakes
	if r.takes("all") {
		r.marks |= resetsAll | forgets
	}
}

// explain goes on to the statement that is explained. It may be run.
func (r *reader) explain() {
	behind := r.lexer
	if behind.next().kind == '(' && !r.isQuery(behind.next()) { // its options
		r.lexer = behind
		for t := r.peek(); !t.ends() && t.kind != ')'; t = r.peek() {
			r.next()
		}
		r.takesMark(')')
	}
	for r.takes("analyze") || r.takes("analyse") || r.takes("verbose") {
	}
	if r.peek().kind == word {
		r.command(r.next())
	}
}

// isQuery reports whether a token begins a query.
func (r *reader) isQuery(t token) bool {
	return t.kind == '(' || r.isVerb(t) || r.is(t, "with")
}

// create looks at what is created.
func (r *reader) create() {
	r.here.creates = true
	behind := r.lexer
	for behind.takes("or") || behind.takes("replace") || behind.takes("global") || behind.takes("local") || behind.takes("unique") {
	}
	switch {
	case behind.takes("temp"), behind.takes("temporary"):
		r.here.temp = true
	case behind.takes("index"):
		r.here.indexes = true
	case behind.takes("extension"): // its script may do anything
		r.marks |= mayChange
	}
}

// takes takes the next token if it is a word that is no part of a dotted name.
func (l *lexer) takes(word string) bool {
	behind := *l
	if !l.is(behind.next(), word) || behind.peek().kind == '.' {
		return false
	}
	*l = behind
	return true
}

// takesMark takes the next token if it is a certain one.
func (l *lexer) takesMark(kind byte) bool {
	if l.peek().kind != kind {
		return false
	}
	l.next()
	return true
}

// deallocated takes DEALLOCATE apart, if that is all there is in the text.
func deallocated(text []byte) (name string, all, ok bool) {
	l := lexer{text: text}
	for l.takesMark(';') {
	}
	if !l.takes("deallocate") {
		return "", false, false
	}
	t := l.next()
	if l.is(t, "prepare") && !l.peek().ends() { // else it is a name
		t = l.next()
	}
	for l.takesMark(';') {
	}
	switch {
	case !t.isName() || l.peek().kind != endOfText:
		return "", false, false
	case l.is(t, "all"):
		return "", true, true
	}
	name = l.name(t)
	return name, false, name != ""
}
