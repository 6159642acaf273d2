package core

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// lexer takes a query apart (PostgreSQL, "Lexical Structure"). It expects that
// standard_conforming_strings is on.
type lexer struct {
	text []byte
	at   int
}

// token is where a piece of the text stands. Its kind is one of those below, or the
// character that it is.
type token struct {
	start, end int32
	kind       byte
}

const (
	endOfText  = byte(0)
	word       = byte('a') // a keyword or a name without quotes
	quotedName = byte('"')
	literal    = byte('\'') // of any kind: also E'…' and $$…$$
	number     = byte('0')
	unclosed   = byte('\\') // a quoted name without its end
)

// isName reports whether a token may name something, and ends whether it ends a
// statement.
func (t token) isName() bool { return t.kind == word || t.kind == quotedName }
func (t token) ends() bool   { return t.kind == endOfText || t.kind == ';' }

// Kinds of bytes, as far as they begin a token.
const (
	space = iota
	letter
	digit
	quote
	doubleQuote
	dollar
	minus
	slash
	other
)

var kindOfByte = func() (kinds [256]uint8) {
	for i := range kinds {
		switch c := byte(i); {
		case c <= ' ':
			kinds[i] = space
		case c >= '0' && c <= '9':
			kinds[i] = digit
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '_', c >= 0x80:
			kinds[i] = letter
		default:
			kinds[i] = other
		}
	}
	kinds['\''], kinds['"'], kinds['$'], kinds['-'], kinds['/'] = quote, doubleQuote, dollar, minus, slash
	return kinds
}()

// inWord are the bytes that go on a word.
var inWord = func() (in [256]bool) {
	for c, kind := range kindOfByte {
		in[c] = kind == letter || kind == digit || kind == dollar
	}
	return in
}()

// next returns the next token.
func (l *lexer) next() token {
	for l.at < len(l.text) {
		start, kind := l.at, l.text[l.at]
		switch kindOfByte[kind] {
		case space:
			l.at++
			continue
		case letter:
			kind = l.word()
		case digit:
			kind = number
			for l.at < len(l.text) && (kindOfByte[l.text[l.at]] == digit || l.text[l.at] == '.') {
				l.at++
			}
		case quote:
			l.quoted('\'')
		case doubleQuote:
			if !l.quoted('"') {
				kind = unclosed
			}
		case dollar:
			kind = l.dollar()
		case minus, slash:
			if l.comment() {
				continue
			}
			l.at++
		default:
			l.at++
		}
		return token{int32(start), int32(l.at), kind}
	}
	return token{int32(l.at), int32(l.at), endOfText}
}

// word takes one, or the literal that begins with it.
func (l *lexer) word() byte {
	start, end := l.at, l.at+1
	for end < len(l.text) && inWord[l.text[end]] {
		end++
	}
	l.at = end
	if end == start+1 && end < len(l.text) && l.text[end] == '\'' && l.text[start]|0x20 == 'e' {
		l.escaped()
		return literal
	}
	return word
}

// quoted takes a literal or a name in quotes, and reports whether it has its end. A doubled
// quote stands for itself.
func (l *lexer) quoted(mark byte) bool {
	for l.at++; ; l.at += 2 {
		end := bytes.IndexByte(l.text[l.at:], mark)
		if end < 0 {
			l.at = len(l.text)
			return false
		}
		l.at += end
		if l.at+1 == len(l.text) || l.text[l.at+1] != mark {
			l.at++
			return true
		}
	}
}

// escaped takes a literal in which a backslash has a meaning.
func (l *lexer) escaped() {
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case '\'':
			if l.at+1 == len(l.text) || l.text[l.at+1] != '\'' {
				l.at++
				return
			}
			l.at++
		}
	}
	l.at = len(l.text)
}

// dollar takes a dollar-quoted literal, or a dollar sign that begins none.
func (l *lexer) dollar() byte {
	end := l.at + 1
	for end < len(l.text) && inWord[l.text[end]] && l.text[end] != '$' {
		end++
	}
	if end == len(l.text) || l.text[end] != '$' || kindOfByte[l.text[l.at+1]] == digit {
		l.at++
		return '$'
	}
	tag := l.text[l.at : end+1]
	l.at = end + 1
	if behind := bytes.Index(l.text[l.at:], tag); behind >= 0 {
		l.at += behind + len(tag)
	} else {
		l.at = len(l.text)
	}
	return literal
}

// comment takes one, if it begins here.
func (l *lexer) comment() bool {
	switch {
	case l.starts("--"):
		for l.at < len(l.text) && l.text[l.at] != '\n' && l.text[l.at] != '\r' {
			l.at++
		}
	case l.starts("/*"):
		l.bracketed()
	default:
		return false
	}
	return true
}

func (l *lexer) starts(s string) bool {
	return len(l.text)-l.at >= len(s) && string(l.text[l.at:l.at+len(s)]) == s
}

// bracketed takes a comment in brackets; they nest.
func (l *lexer) bracketed() {
	for depth := 0; l.at < len(l.text); {
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

// peek returns the next token and leaves it there.
func (l *lexer) peek() token {
	behind := *l
	return behind.next()
}

func (l *lexer) of(t token) []byte { return l.text[t.start:t.end] }

// is compares a keyword with want, which is lower-case.
func (l *lexer) is(t token, want string) bool {
	return t.kind == word && int(t.end-t.start) == len(want) && hasPrefix(l.of(t), want)
}

// hasPrefix compares in lower case; want is lower-case.
func hasPrefix(word []byte, want string) bool {
	if len(word) < len(want) {
		return false
	}
	for i := range len(want) {
		if lower(word[i]) != want[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte { return lowered[c] }

var lowered = func() (table [256]byte) {
	for i := range table {
		table[i] = byte(i)
	}
	for c := 'A'; c <= 'Z'; c++ {
		table[c] += 'a' - 'A'
	}
	return table
}()

// fold appends what a name or a keyword stands for: in lower case if it is not quoted.
// What is longer than dst's capacity, or doubles quotes, comes back as nil, so that
// nothing is allocated.
func (l *lexer) fold(dst []byte, t token) []byte {
	text := l.of(t)
	if t.kind == quotedName {
		if text = unwrap(text); bytes.IndexByte(text, '"') >= 0 {
			return nil
		}
	}
	if len(text) > cap(dst) {
		return nil
	}
	dst = dst[:len(text)]
	if t.kind == quotedName {
		copy(dst, text)
		return dst
	}
	for i, c := range text {
		dst[i] = lowered[c]
	}
	return dst
}

// unwrap takes the quotes off; the last one may be missing at the end of a text.
func unwrap(text []byte) []byte {
	mark := text[0]
	if text = text[1:]; len(text) > 0 && text[len(text)-1] == mark {
		text = text[:len(text)-1]
	}
	return text
}

// nameLimit is how much of a name PostgreSQL keeps, in bytes.
const nameLimit = 63

// name returns a name as PostgreSQL has it.
func (l *lexer) name(t token) string {
	text := l.of(t)
	if t.kind == quotedName {
		return cutName(strings.ReplaceAll(string(unwrap(text)), `""`, `"`))
	}
	folded := make([]byte, len(text))
	for i, c := range text {
		folded[i] = lower(c)
	}
	return cutName(string(folded))
}

// cutName cuts a name where PostgreSQL does: between two characters.
func cutName(name string) string {
	if len(name) <= nameLimit {
		return name
	}
	end := nameLimit
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}
