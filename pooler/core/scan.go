package core

// marks are what the text of a query tells about the session state that it may
// leave behind.
type marks uint8

const (
	// leavesState: it may make something that outlives the transaction and that no
	// command tag shows: a temporary object, a session advisory lock, a held cursor,
	// a setting by set_config.
	leavesState marks = 1 << iota
	// harmlessSet: it is a single SET that leaves nothing to be reset: SET LOCAL, SET
	// TRANSACTION, or of a parameter that is tracked.
	harmlessSet
	// refused: it was sent in the place of a command that is refused.
	refused
	// commits: it ends a transaction, so that losing its reply leaves the outcome
	// open.
	commits
	// anew: the statement was closed to be prepared again.
	anew
	// forgets: it may drop prepared statements.
	forgets
)

// unknownText are the marks of a text that is not looked at.
const unknownText = leavesState | commits | forgets

// scanLimit is how much of a text is looked at, in bytes. A longer one is taken to
// leave state.
const scanLimit = 64 << 10

// scan looks at the words of a query. It does not parse: a word inside a literal or
// a comment counts too, which costs a reset that was not needed and nothing else.
func scan(text []byte) marks {
	if len(text) > scanLimit {
		return unknownText
	}
	var m marks
	for i := 0; i < len(text); {
		if !isWordByte(text[i]) {
			i++
			continue
		}
		start := i
		for i < len(text) && isWordByte(text[i]) {
			i++
		}
		if m |= markOf(text[start:i]); m == unknownText {
			break
		}
	}
	if isHarmlessSet(text) {
		m |= harmlessSet
	}
	return m
}

func markOf(word []byte) marks {
	switch word[0] | 0x20 {
	case 't':
		if isWord(word, "temp") || isWord(word, "temporary") {
			return leavesState
		}
	case 'p':
		if isWord(word, "prepare") {
			return commits // of a transaction; else it costs nothing
		}
		if hasPrefix(word, "pg_temp") || isSessionLock(word) {
			return leavesState
		}
	case 's':
		if isWord(word, "set_config") {
			return leavesState
		}
	case 'd':
		if isWord(word, "discard") || isWord(word, "deallocate") {
			return forgets
		}
	case 'h':
		if isWord(word, "hold") {
			return leavesState
		}
	case 'c':
		if isWord(word, "commit") {
			return commits
		}
	case 'e':
		if isWord(word, "end") {
			return commits
		}
	}
	return 0
}

// isSessionLock reports whether a word names a function that takes an advisory lock
// for the session.
func isSessionLock(word []byte) bool {
	for _, f := range [...]string{"pg_advisory_lock", "pg_try_advisory_lock"} {
		if hasPrefix(word, f) {
			return true // also the …_shared ones; the transaction's have xact in the middle
		}
	}
	return false
}

// isHarmlessSet looks at a text that is one SET command.
func isHarmlessSet(text []byte) bool {
	l := lexer{text: text}
	if !l.next().is("set") || !l.harmlessSetting() {
		return false
	}
	for t := l.next(); !t.ends(); t = l.next() {
	}
	return l.next().end()
}

// harmlessSetting looks at what follows SET.
func (l *lexer) harmlessSetting() bool {
	name := l.next()
	if name.is("session") {
		name = l.next()
	}
	if behind := *l; behind.next().mark == '.' { // a parameter of somebody's own, such as local.x
		return false
	}
	if name.is("local") || name.is("transaction") || name.is("constraints") {
		return true
	}
	for _, tracked := range [...]string{
		"application_name", "client_encoding", "names", "datestyle", "intervalstyle",
		"timezone", "time", "standard_conforming_strings", "default_transaction_read_only",
	} {
		if name.is(tracked) {
			return true
		}
	}
	return false
}

// isSingle reports whether nothing but white space follows the first ';'.
func isSingle(text []byte) bool {
	for i, c := range text {
		if c == ';' {
			word, _ := nextWord(text[i+1:])
			return len(word) == 0
		}
	}
	return true
}

// nextWord returns the first word and what follows it.
func nextWord(text []byte) (word, rest []byte) {
	i := 0
	for i < len(text) && !isWordByte(text[i]) {
		i++
	}
	start := i
	for i < len(text) && isWordByte(text[i]) {
		i++
	}
	return text[start:i], text[i:]
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= '0' && c <= '9' || c >= 0x80
}

// isWord compares in lower case; want is lower-case.
func isWord(word []byte, want string) bool { return len(word) == len(want) && hasPrefix(word, want) }

func hasPrefix(word []byte, want string) bool {
	if len(word) < len(want) {
		return false
	}
	for i := range len(want) {
		c := word[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}
