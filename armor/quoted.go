package armor

import "strings"

// CutQuoted takes a word in quotes off the front of s, as PgBouncer's files and commands
// have them: a quote inside is written twice.
func CutQuoted(s string, quote byte) (word, rest string, ok bool) {
	if s == "" || s[0] != quote {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != quote:
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == quote:
			b.WriteByte(quote)
			i++
		default:
			return b.String(), s[i+1:], true
		}
	}
	return "", s, false
}
