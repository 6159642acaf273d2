package pgbouncer

import (
	"encoding/hex"
	"strings"

	"github.com/armordb/armordb/armor"
)

// user is a line of auth_file.
type user struct {
	place
	name   string
	secret string // as it is written: a password, an MD5 hash or a SCRAM verifier
}

// String keeps the secret out of error texts and tests' output.
func (u user) String() string { return "user " + u.name + " of " + u.place.String() }

const scramPrefix = "SCRAM-SHA-256$"

func (u user) isVerifier() bool { return strings.HasPrefix(u.secret, scramPrefix) }

// isMD5 goes by PgBouncer's own rule: md5 and 32 hex digits.
func (u user) isMD5() bool {
	digits, ok := strings.CutPrefix(u.secret, "md5")
	_, err := hex.DecodeString(digits)
	return ok && len(digits) == 32 && err == nil
}

// password is empty where there is none, or where it cannot be known.
func (u user) password() string {
	if u.isVerifier() || u.isMD5() {
		return ""
	}
	return u.secret
}

// readUserlist reads auth_file: lines of "name" "secret", with whatever behind them.
// Errors repeat nothing of a secret.
func readUserlist(name string, text []byte) ([]user, error) {
	f := &faults{}
	var users []user
	seen := map[string]place{}
	for p, line := range lines(f, name, text) {
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		who, rest, ok := armor.CutQuoted(line, '"')
		secret, _, alsoOK := armor.CutQuoted(strings.TrimSpace(rest), '"')
		first, twice := seen[who]
		switch {
		case !ok || !alsoOK:
			f.at(p, `the line is not "name" "secret"`)
		case who == "" || len(who) > maxName:
			f.at(p, "the name is empty, or has more than %d bytes", maxName)
		case twice:
			f.at(p, "user %q is there already, in line %d", clip(who), first.line)
		case len(users) == maxEntries:
			f.at(p, "more than %d users", maxEntries)
		default:
			seen[who] = p
			users = append(users, user{p, who, secret})
		}
	}
	return users, f.err()
}
