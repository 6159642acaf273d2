package core

// open looks at a parenthesis: with a name before it, it may be a call.
func (r *reader) open() {
	switch {
	case r.here.prev.isName():
		r.call()
	case r.here.prev.kind == literal && !r.here.quiet: // U&"name" UESCAPE '!' (
		r.marks |= mayChange | runsCode
	}
}

// call looks at a name and the parenthesis behind it.
func (r *reader) call() {
	kind := r.function()
	switch {
	case kind == harmlessFunction:
		return
	case kind == keyword:
		r.here.loose = r.here.loose || r.is(r.here.name, "operator") || r.is(r.here.name, "on") && r.is(r.here.before, "distinct")
		return
	case r.here.quiet || r.callsNothing():
		return
	}
	switch kind {
	case takesLock:
		r.marks |= locks
	case givesLock:
		r.marks |= unmakes
	case setsConfig:
		r.setConfig()
	case readsNumber:
		r.marks |= usesNumbers
	case takesNumber:
		r.marks |= advances
	default:
		r.marks |= mayChange | runsCode
	}
}

// function returns what is known of the last name.
func (r *reader) function() functionKind {
	var space [longestFunction]byte
	kind := functions[string(r.fold(space[:0], r.here.name))]
	if !r.here.dotted {
		if kind == keyword && r.here.name.kind == quotedName {
			return unknownFunction
		}
		return kind
	}
	switch string(r.fold(space[:0], r.here.schema)) {
	case "pg_catalog":
		if kind == keyword { // such as pg_catalog.numeric(…)
			return harmlessFunction
		}
		return kind
	case "information_schema":
		return harmlessFunction
	}
	return unknownFunction
}

// callsNothing reports whether what stands before a name shows that it is no function's:
// it names a table, a type or an alias, with its columns or its length behind it. In
// doubt it is a function's.
func (r *reader) callsNothing() bool {
	switch before := r.here.before; before.kind {
	case endOfText:
		return true
	case ')':
		return !r.here.loose
	case ':': // of two
		return before.start > 0 && r.text[before.start-1] == ':'
	case word:
		return r.announcesNoCall(before) || r.here.ctes && r.here.depth == 0
	}
	return r.here.ctes && r.here.depth == 0
}

// announcesNoCall reports whether no call can follow a word.
func (r *reader) announcesNoCall(before token) bool {
	var space [10]byte
	switch string(r.fold(space[:0], before)) {
	case "into", "only", "table", "as", "exists", "references", "with", "recursive", "function", "procedure", "aggregate", "routine":
		return true
	case "on":
		return r.here.indexes
	case "using":
		return r.here.creates
	}
	return false
}
