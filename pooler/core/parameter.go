package core

import "bytes"

// set looks at what follows SET.
func (r *reader) set() {
	switch {
	case r.takes("local"):
		r.marks |= setsLocal
	case r.takes("transaction"), r.takes("constraints"):
	case r.takes("seed"): // of random: nothing that could be restored, or tells anything
	case !r.takes("session"):
		r.assign(r.parameter())
	case r.takes("characteristics"):
		r.marks |= sets | setsUntracked
		r.touches("default_transaction_isolation")
		r.touches("default_transaction_read_only")
		r.touches("default_transaction_deferrable")
	case r.takes("authorization"):
		r.assign("session_authorization")
	default:
		r.set()
	}
}

// reset looks at what follows RESET.
func (r *reader) reset() {
	switch {
	case r.takes("all"):
		r.marks |= resetsAll
		return
	case r.takes("transaction"): // ISOLATION LEVEL
		r.touches("transaction_isolation")
	case r.takes("session"):
		r.touches("session_authorization")
	default:
		r.touches(r.parameter())
	}
	r.marks |= resets
}

// parameter takes the name of one; some have a spelling of their own. It is empty when
// there is none.
func (r *reader) parameter() string {
	switch {
	case r.takes("time"):
		r.takes("zone")
		return "timezone"
	case r.takes("names"):
		return "client_encoding"
	case r.takes("xml"):
		r.takes("option")
		return "xmloption"
	case r.takes("schema"):
		return "search_path"
	}
	var name []byte
	for r.peek().isName() {
		name = append(name, r.name(r.next())...)
		if !r.takesMark('.') {
			break
		}
		name = append(name, '.')
	}
	return settingName(name)
}

// settingName spells the name of a parameter in lower case: PostgreSQL compares without
// regard to it. Two have older names.
func settingName(name []byte) string {
	for i, c := range name {
		name[i] = lower(c)
	}
	switch string(name) {
	case "sort_mem":
		return "work_mem"
	case "vacuum_mem":
		return "maintenance_work_mem"
	}
	return string(name)
}

// assign notes that a parameter is set, or set to its default, for the session.
func (r *reader) assign(name string) {
	behind := r.lexer
	if !behind.takes("to") {
		behind.takesMark('=')
	}
	if behind.takes("default") || name == "timezone" && behind.takes("local") || behind.peek().ends() {
		r.marks |= resets
	} else {
		r.marks |= sets
	}
	if !isTracked(name) {
		r.marks |= setsUntracked
	}
	r.touches(name)
}

// isTracked reports whether a parameter follows its client by ParameterStatus.
func isTracked(name string) bool {
	switch name {
	case "application_name", "client_encoding", "datestyle", "intervalstyle", "timezone", "standard_conforming_strings",
		"default_transaction_read_only":
		return true
	}
	return false
}

// setConfig looks at the arguments of set_config, which begin here.
func (r *reader) setConfig() {
	args := r.lexer
	if args.isLocal() {
		r.marks |= setsLocal
		return
	}
	args = r.lexer
	name := ""
	if t := args.next(); r.isPlain(t) && args.takesMark(',') {
		name = settingName(bytes.ReplaceAll(unwrap(r.of(t)), []byte("''"), []byte("'")))
	}
	r.marks |= sets
	if !isTracked(name) {
		r.marks |= setsUntracked | setsByCall
	}
	r.touches(name)
}

// isPlain reports whether a token is a literal that means what it says.
func (l *lexer) isPlain(t token) bool { return t.kind == literal && l.text[t.start] == '\'' }

// argumentLimit is how many tokens of a call are looked at.
const argumentLimit = 100

// isLocal takes the arguments of a call and reports whether the last one is surely true.
func (l *lexer) isLocal() bool {
	sure, first := false, false // of the last argument; whether the next token begins one
	depth := 0
	for range argumentLimit {
		t := l.next()
		switch {
		case t.kind == endOfText:
			return false
		case t.kind == ')' && depth == 0:
			return sure
		case t.kind == ',' && depth == 0:
			sure, first = false, true
			continue
		case t.kind == '(':
			depth++
		case t.kind == ')':
			depth--
		}
		sure, first = first && l.isTrue(t), false
	}
	return false
}

// isTrue reports whether a token is a constant that is true.
func (l *lexer) isTrue(t token) bool {
	text := l.of(t)
	switch {
	case l.isPlain(t):
		text = unwrap(text)
	case t.kind != word:
		return false
	}
	var space [4]byte
	if len(text) > len(space) {
		return false
	}
	value := space[:len(text)]
	for i, c := range text {
		value[i] = lower(c)
	}
	switch string(value) {
	case "true":
		return true
	case "t", "on", "yes", "y", "1":
		return t.kind == literal
	}
	return false
}
