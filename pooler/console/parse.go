package console

import (
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// command is what somebody has typed at the admin console: a verb and, for some, its
// object. SET has its value besides.
type command struct {
	verb  string // lower case; empty for nothing but white space, comments and semicolons
	arg   string
	value string
	text  string // as it was typed, shortened for errors
}

const (
	maxWord   = 63  // as the names of Armor's objects
	maxQuoted = 200 // bytes of a command that an error repeats
)

// parseCommand reads one command (PgBouncer, "Admin console"): CMD [argument] [;] or
// SET key {= | TO} value [;]. Words are letters, digits and any of _ - . or anything
// between double quotes; a value may also stand between single quotes.
func parseCommand(sql string) (command, *pgwire.Error) {
	cmd := command{text: quoted(sql)}
	words, ok := splitCommand(sql)
	for ok && len(words) > 0 && words[len(words)-1] == semicolon {
		words = words[:len(words)-1]
	}
	switch {
	case !ok:
		return cmd, invalidCommand(cmd)
	case len(words) == 0:
		return cmd, nil
	}
	for _, w := range words {
		if len(w.text) > maxWord {
			return cmd, refusal(stateSyntax, "bad arguments")
		}
	}
	cmd.verb = strings.ToLower(words[0].text)
	switch {
	case cmd.verb == "set":
		return parseSet(cmd, words[1:])
	case words[0].kind != bareWord || len(words) > 2 || len(words) == 2 && !words[1].isName():
		return cmd, invalidCommand(cmd)
	case len(words) == 2:
		cmd.arg = words[1].text
	}
	return cmd, nil
}

func parseSet(cmd command, words []word) (command, *pgwire.Error) {
	if len(words) != 3 || !words[0].isName() || words[1] != equals && !strings.EqualFold(words[1].text, "to") || !words[2].isValue() {
		return cmd, invalidCommand(cmd)
	}
	cmd.arg, cmd.value = words[0].text, words[2].text
	return cmd, nil
}

// word is a token of a command.
type word struct {
	kind wordKind
	text string // without quotes
}

type wordKind uint8

const (
	bareWord wordKind = iota
	quotedName
	quotedText
	sign
)

var (
	semicolon = word{sign, ";"}
	equals    = word{sign, "="}
)

func (w word) isName() bool  { return w.kind == bareWord || w.kind == quotedName }
func (w word) isValue() bool { return w.kind != sign }

// splitCommand cuts a command into words. It reports false for what cannot be one.
func splitCommand(s string) (words []word, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t\n\r\f\v")
		var w word
		switch {
		case s == "":
			return words, true
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
			continue
		case s[0] == ';' || s[0] == '=':
			w, s = word{sign, s[:1]}, s[1:]
		case s[0] == '"':
			w.kind = quotedName
			w.text, s, ok = armor.CutQuoted(s, '"')
		case s[0] == '\'':
			w.kind = quotedText
			w.text, s, ok = armor.CutQuoted(s, '\'')
		default:
			w.text, s = cutBare(s)
		}
		if w.kind == bareWord && w.text == "" || (w.kind == quotedName || w.kind == quotedText) && !ok {
			return nil, false
		}
		words = append(words, w)
	}
}

func cutBare(s string) (text, rest string) {
	for i, c := range []byte(s) {
		if !isBare(c) {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// quoted is a command as an error repeats it.
func quoted(sql string) string {
	if len(sql) > maxQuoted {
		sql = sql[:maxQuoted] + "…"
	}
	return strings.ToValidUTF8(strings.ReplaceAll(sql, "\x00", ""), "�")
}

// SQLSTATEs of the console.
const (
	stateUnsupported = "0A000"
	stateProtocol    = "08P01"
	stateSyntax      = "42601"
	stateNotAllowed  = "42501"
	stateNoDatabase  = "3D000"
	stateNoObject    = "42704"
	stateNotInState  = "55000"
	stateCanceled    = "57014"
)

func refusal(code, message string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityError, Code: code, Message: message}
}

// invalidCommand has PgBouncer's words.
func invalidCommand(cmd command) *pgwire.Error {
	return refusal(stateSyntax, "invalid command '"+cmd.text+"', use SHOW HELP;")
}
