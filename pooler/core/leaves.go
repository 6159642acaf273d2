package core

// leavesBehind reports whether the words of a query tell for certain that it leaves
// session state behind. Unlike scan it errs on the other side, since its answer refuses
// the query: what stands in literals, quoted names, comments and function bodies does not
// count, nor does a word in another place than that of the command it belongs to.
func leavesBehind(text []byte) bool {
	l := lexer{text: text}
	for !l.over() {
		if l.statement() {
			return true
		}
	}
	return false
}

// lexer takes a query apart as far as leavesBehind needs it (PostgreSQL, "Lexical
// Structure").
type lexer struct {
	text []byte
	at   int
}

// token is a word, in the text's own case, or one other character. A literal counts as
// one quote character.
type token struct {
	word []byte
	mark byte // when word is nil; 0 at the end of the text
}

func (t token) is(word string) bool { return t.word != nil && isWord(t.word, word) }

// end reports whether the text has ended, and ends whether the statement has.
func (t token) end() bool  { return t.word == nil && t.mark == 0 }
func (t token) ends() bool { return t.end() || t.mark == ';' }

func (l *lexer) over() bool { return l.at >= len(l.text) }

// statement takes tokens up to the next semicolon.
func (l *lexer) statement() bool {
	first := l.next()
	switch {
	case first.ends():
		return false
	case first.is("set"):
		if !l.harmlessSetting() {
			return true
		}
	case first.is("listen"):
		return true
	case first.is("prepare"):
		if !l.next().is("transaction") {
			return true
		}
	}
	return l.rest(first)
}

// createWords is how many words may stand between CREATE and TEMP.
const createWords = 3

// rest looks at the tokens behind the first one.
func (l *lexer) rest(first token) bool {
	before := first
	for n := 1; ; n++ {
		t := l.next()
		switch {
		case t.ends():
			return false
		case t.mark == '(' && callsForState(before.word):
			return true
		case t.is("temp") || t.is("temporary"):
			if first.is("create") && n <= createWords || before.is("into") {
				return true
			}
		case t.is("pg_temp"):
			if first.is("create") {
				return true
			}
		case t.is("hold"):
			if first.is("declare") && before.is("with") {
				return true
			}
		}
		before = t
	}
}

// callsForState reports whether a function leaves a state behind.
func callsForState(name []byte) bool {
	return isWord(name, "set_config") || isSessionLock(name)
}

// next returns the next token.
func (l *lexer) next() token {
	l.skipSpace()
	if l.over() {
		return token{}
	}
	start, c := l.at, l.text[l.at]
	switch {
	case c == '\'':
		l.quoted('\'', false)
	case c == '"':
		l.quoted('"', false)
	case c == '$':
		l.dollar()
	case isWordByte(c):
		for !l.over() && (isWordByte(l.text[l.at]) || l.text[l.at] == '$') {
			l.at++
		}
		word := l.text[start:l.at]
		if isWord(word, "e") && !l.over() && l.text[l.at] == '\'' {
			l.quoted('\'', true)
			return token{mark: '\''}
		}
		return token{word: word}
	default:
		l.at++
	}
	return token{mark: c}
}

// skipSpace skips white space and comments.
func (l *lexer) skipSpace() {
	for !l.over() {
		switch c := l.text[l.at]; {
		case c <= ' ':
			l.at++
		case l.starts("--"):
			for !l.over() && l.text[l.at] != '\n' && l.text[l.at] != '\r' {
				l.at++
			}
		case l.starts("/*"):
			l.comment()
		default:
			return
		}
	}
}

func (l *lexer) starts(s string) bool {
	return len(l.text)-l.at >= len(s) && string(l.text[l.at:l.at+len(s)]) == s
}

// comment skips one; they nest.
func (l *lexer) comment() {
	for depth := 0; !l.over(); {
		switch {
		case l.starts("/*"):
			depth++
			l.at += 2
		case l.starts("*/"):
			l.at += 2
			if depth--; depth == 0 {
				return
			}
		default:
			l.at++
		}
	}
}

// quoted skips a literal or a quoted name. A doubled quote begins another one behind it,
// which comes to the same.
func (l *lexer) quoted(quote byte, escapes bool) {
	for l.at++; !l.over() && l.text[l.at] != quote; l.at++ {
		if escapes && l.text[l.at] == '\\' {
			l.at++
		}
	}
	l.at = min(l.at+1, len(l.text))
}

// dollar skips a dollar-quoted literal, or a dollar sign that begins none.
func (l *lexer) dollar() {
	end := l.at + 1
	for end < len(l.text) && isWordByte(l.text[end]) {
		end++
	}
	if end == len(l.text) || l.text[end] != '$' || l.text[l.at+1] >= '0' && l.text[l.at+1] <= '9' {
		l.at++
		return
	}
	tag := string(l.text[l.at : end+1])
	for l.at = end + 1; !l.over(); l.at++ {
		if l.text[l.at] == '$' && l.starts(tag) {
			l.at += len(tag)
			return
		}
	}
}
