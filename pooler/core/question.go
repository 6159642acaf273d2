package core

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// What PostgreSQL is asked is made of names of pg_catalog only, so that no search_path leads
// elsewhere, and its answer is hexadecimal, so that every client_encoding shows it alike. It
// runs in the implicit transaction of a query of several commands, where the client's default
// isolation is not in its way.
const (
	questionBegins = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "

	// withoutTimeOut is for another try: the client has set a time-out that is too short for the
	// question. It is told first.
	withoutTimeOut = "SHOW statement_timeout; SET LOCAL statement_timeout = 0; "

	settingsBegin = "SELECT name, pg_catalog.encode(pg_catalog.convert_to(value, pg_catalog.getdatabaseencoding()), 'hex') FROM ("
	settingsEnd   = ") AS kept (name, value) WHERE value IS NOT NULL; "

	// listed are the parameters that are set, as far as PostgreSQL lists them (PostgreSQL,
	// "pg_settings").
	listed = "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'"

	// askPins asks for what cannot follow the client, in the order of pinNames. All that is in a
	// schema depends on it: 2615 is pg_namespace.
	askPins = "SELECT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615" +
		" AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()), " +
		"EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), " +
		"EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'" +
		" AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), " +
		"EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable), " +
		"EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"
)

// isUnlisted reports whether pg_settings does not list a parameter: those that anybody may
// make up, and who the session is.
func isUnlisted(name string) bool {
	return isWho(name) || strings.Contains(name, ".")
}

// full reports whether all that PostgreSQL lists must be asked for. The value of a parameter
// does not tell whether it is set: after a RESET, or when a transaction was rolled back, the
// list does.
func (k *keeping) full() bool {
	m := k.touched.marks
	if m&(mayChange|resetsAll) != 0 || k.over || k.fell() {
		return true
	}
	for _, name := range k.touched.names {
		if !isUnlisted(name) && (m&resets != 0 || k.undone) { // its value does not say whether it is set
			return true
		}
	}
	return false
}

// question is what PostgreSQL is asked. keep are the pool's keepSettings, which a function may
// set.
func (k *keeping) question(keep []string) string {
	var parts []string
	names := k.touched.names
	if k.full() {
		parts = append(parts, listed)
		names = slices.Clone(whoNames)
		for _, name := range append(k.named[:len(k.named):len(k.named)], keep...) {
			names = appendOnce(names, name)
		}
	}
	if values := askedByName(names); values != "" {
		parts = append(parts, values)
	}
	sql := questionBegins
	if k.tries > 0 {
		sql += withoutTimeOut
	}
	if len(parts) > 0 {
		sql += settingsBegin + strings.Join(parts, " UNION ALL ") + settingsEnd
	}
	if k.pins != 0 || k.touched.marks&(mayChange|pinning) != 0 {
		sql += askPins
	}
	return sql
}

func appendOnce(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// askedByName is the rows for parameters that are asked for one by one.
func askedByName(names []string) string {
	var rows []string
	for _, name := range names {
		rows = append(rows, fmt.Sprintf("(%[1]s, pg_catalog.current_setting(%[1]s, true))", plain(name)))
	}
	if len(rows) == 0 {
		return ""
	}
	return "VALUES " + strings.Join(rows, ", ")
}

// take takes a row: of one column, the time-out; of two, a parameter; of more, what pins.
func (a *answer) take(row [][]byte) error {
	switch len(row) {
	case 1:
		a.timeOut = string(row[0])
		return nil
	case len(pinNames):
		a.takePins(row)
		return nil
	case 2:
	default:
		return fmt.Errorf("%w: a row of %d columns", armor.ErrInvalid, len(row))
	}
	value, err := hex.DecodeString(string(row[1]))
	if err != nil {
		return fmt.Errorf("%w: %q is not hexadecimal", armor.ErrInvalid, row[1])
	}
	a.add(strings.ToLower(string(row[0])), string(value))
	return nil
}

func (a *answer) takePins(row [][]byte) {
	a.pinsSaid = true
	for i, value := range row {
		if string(value) == "t" {
			a.pins |= 1 << i
		}
	}
}

func (a *answer) add(name, value string) {
	switch name {
	case "statement_timeout":
		value = cmp.Or(a.timeOut, value)
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable": // SET TRANSACTION leaves them in the list
		return
	}
	if a.size += len(name) + len(value); a.size > keptLimit {
		a.lost = true
		return
	}
	a.settings = append(a.settings, pair{name, value})
}

// answerFailed takes an error in the place of the answer.
func (s *Session) answerFailed(h pgwire.Header, b []byte) int {
	s.kept.answer.failed = true
	n := min(h.Size(), len(b))
	s.serverLeft, s.serverDrop = h.Size()-n, true
	return n
}
