package pgbouncer

import (
	"fmt"

	"github.com/armordb/armordb/armor"
)

// PgBouncer's auth_user looks up in PostgreSQL who is not in auth_file. What passwords are
// checked by is looked up here, too, but not who there is: roles and identities are written
// down, and nodes log in by secrets of their own.

// query is what a database's auth_user asks; the zero one where it has none. Clients of a
// database with a forced user prove that user's password to nobody.
func (t *translation) query(s *section) armor.AuthQuery {
	w := where{t, nil, s}
	role, _, _ := w.find("auth_user", "auth_user")
	if role == "" || s.values["user"] != "" {
		return armor.AuthQuery{}
	}
	statement, _, written := w.find("auth_query", "auth_query")
	if asked, p, _ := w.find("auth_dbname", "auth_dbname"); written && asked != "" && asked != s.key {
		t.report.note(p, "auth_dbname", asked, outcome{
			why:     fmt.Sprintf("auth_query of database %s is run in the database itself, which may not have what it calls", s.key),
			instead: "make the function that it calls there, too, and take auth_dbname out",
		})
	}
	return armor.AuthQuery{Role: role, Statement: statement}
}

// asker reports whether a user is known for nothing but asking for others' passwords.
func (t *translation) asker(name string) bool {
	asks := false
	for d := range t.state.Databases.Values() {
		if d.Query.Role == name {
			asks = true
		} else if _, is := d.Auth(name); is {
			return false
		}
	}
	return asks
}

func (t *translation) noteAsker(name string) {
	if u, listed := t.listedUser(name); listed {
		t.report.note(u.place, "userlist."+name, "",
			outcome{to: "Database spec.auth.query", note: "no client is let in as this user, who reads passwords"})
	}
}

// unknownPassword names the secret of a role whose password PgBouncer finds out when a
// client logs in.
func (t *translation) unknownPassword(p place, role string) armor.SecretName {
	name := t.secretName(role)
	t.report.note(p, "userlist."+role, "", outcome{
		why:     "PgBouncer logs in to PostgreSQL with what auth_query finds: nodes have a password of their own for each role",
		instead: fmt.Sprintf("put the role's password into the secret %s on every node, or into the file of --userlist", name),
	})
	return armor.SecretName(name)
}
