package core

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Settings are the parameters that are set for one client's session: those of its startup
// packet, and what it has SET since as far as PostgreSQL reports that. Names are lower-case,
// values are bytes in the database's encoding. They are immutable and may be shared; nil are
// none.
type Settings struct {
	pairs []pair // sorted by name
	read  [16]byte
}

// settingsOf digests those that Parse may read: a literal, a name or a type means something
// else under another DateStyle, search_path or client_encoding. Names with a dot are for
// functions, which run later.
func settingsOf(pairs []pair) *Settings {
	if len(pairs) == 0 {
		return nil
	}
	var words []byte
	for _, p := range pairs {
		if p.name != "application_name" && !strings.HasSuffix(p.name, "_timeout") && !strings.Contains(p.name, ".") {
			words = append(append(append(append(words, p.name...), 0), p.value...), 0)
		}
	}
	s := &Settings{pairs: pairs}
	if len(words) > 0 && mutant != SettingsUnread {
		digest := sha256.Sum256(words)
		s.read = [16]byte(digest[:16])
	}
	return s
}

// reads returns the digest of what Parse may read.
func (s *Settings) reads() [16]byte {
	if s == nil {
		return [16]byte{}
	}
	return s.read
}

// NewSettings returns the settings of a map, which it does not keep. It returns nil
// when there are none.
func NewSettings(values map[string]string) *Settings { return settingsOf(sortedPairs(values)) }

// SQL returns the statement that puts the settings in force on a server connection that has
// none; empty when there are none.
func (s *Settings) SQL() string { return turn(nil, s, nil) }

func (s *Settings) list() []pair {
	if s == nil {
		return nil
	}
	return s.pairs
}

// values returns the settings as a map, which is the caller's.
func (s *Settings) values() map[string]string {
	values := make(map[string]string, len(s.list()))
	for _, p := range s.list() {
		values[p.name] = p.value
	}
	return values
}

// get returns a setting's value, and whether it is set.
func (s *Settings) get(name string) (string, bool) {
	pairs := s.list()
	i, found := slices.BinarySearchFunc(pairs, pair{name: name}, pair.compare)
	if !found {
		return "", false
	}
	return pairs[i].value, true
}

// with returns settings in which name has the value.
func (s *Settings) with(name, value string) *Settings {
	return settingsOf((&Params{pairs: s.list()}).With(name, value).pairs)
}

// without returns settings in which name is not set.
func (s *Settings) without(name string) *Settings {
	if _, set := s.get(name); !set {
		return s
	}
	return settingsOf(slices.DeleteFunc(slices.Clone(s.pairs), func(p pair) bool { return p.name == name }))
}

// turn returns the statement that turns the settings that a server connection has into
// those that a client wants; empty when they are the same. set_config takes the value of a
// list such as search_path as it is. What is not wanted any more is led back to what the
// connection was given before any client, else by NULL to what the login had: RESET.
func turn(have, want, given *Settings) string {
	if have == want || slices.Equal(have.list(), want.list()) { // as it is, most of the time
		return ""
	}
	var others []string
	for _, p := range have.list() {
		if _, kept := want.get(p.name); !kept && !isWho(p.name) {
			others = append(others, settingCall(p.name, given.literal(p.name)))
		}
	}
	for _, p := range want.list() {
		if value, set := have.get(p.name); (!set || value != p.value) && !isWho(p.name) {
			others = append(others, settingCall(p.name, plain(p.value)))
		}
	}
	return "SELECT " + strings.Join(byLogin(have, want, given, others), ", ")
}

// literal is a setting's value as SQL; NULL if it is not set.
func (s *Settings) literal(name string) string {
	if value, set := s.get(name); set {
		return plain(value)
	}
	return "NULL"
}

func settingCall(name, value string) string {
	return "pg_catalog.set_config(" + plain(name) + ", " + value + ", false)"
}

// turnAgain is turn where the notes may be old as to who the session is: that has not been asked for
// since. It is left as it is, unless they differ in it.
func turnAgain(have, want, given *Settings) string {
	for _, name := range whoNames {
		is, set := have.get(name)
		if becomes, wanted := want.get(name); set == wanted && is == becomes {
			have, want = have.without(name), want.without(name)
		}
	}
	return turn(have, want, given)
}

// whoNames are the parameters that say who the session is.
var whoNames = []string{"role", "session_authorization"}

func isWho(name string) bool { return slices.Contains(whoNames, name) }

// byLogin returns the calls that make the session who it is to be, with the others in between: they
// are made by who has logged in, since a role may not be allowed what that has set. PostgreSQL makes
// them in their order. SET SESSION AUTHORIZATION ends a SET ROLE.
func byLogin(have, want, given *Settings, others []string) []string {
	var before, after []string
	if _, set := have.get("role"); set {
		before = append(before, settingCall("role", "NULL"))
	}
	is, set := have.get("session_authorization")
	becomes, wanted := want.get("session_authorization")
	if leaves := set && (!wanted || is != becomes || len(others) > 0); leaves {
		before, set = append(before, settingCall("session_authorization", "NULL")), false
	}
	if !wanted && len(before) > 0 { // back to what the connection was given
		becomes, wanted = given.get("session_authorization")
	}
	if wanted && !set {
		after = append(after, settingCall("session_authorization", plain(becomes)))
	}
	role, wanted := want.get("role")
	if !wanted && len(before) > 0 {
		role, wanted = given.get("role")
	}
	if wanted {
		after = append(after, settingCall("role", plain(role)))
	}
	return slices.Concat(before, others, after)
}

// plain is a string as SQL that is read alike in every client_encoding and with every
// standard_conforming_strings: what is not plain goes as the hexadecimal digits of its bytes.
func plain(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString([]byte(s)) +
				"', 'hex'), pg_catalog.getdatabaseencoding())"
		}
	}
	return "'" + s + "'"
}
