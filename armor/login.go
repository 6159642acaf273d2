package armor

import "fmt"

// RoleAuth says how nodes log in as a server role. With neither a password nor a
// certificate the server must ask for nothing (trust, peer).
type RoleAuth struct {
	Role   string
	Secret SecretName // its password
	// Certificate names the client certificate that is shown to the server, and its key.
	Certificate SecretName
	// MD5 lets a server have the password proved by MD5.
	MD5 bool
}

// Auth returns how to log in as role.
func (d Database) Auth(role string) (RoleAuth, bool) {
	for _, a := range d.Roles {
		if a.Role == role {
			return a, true
		}
	}
	return RoleAuth{}, false
}

// AuthQuery asks the database itself by what the password of a client is checked: its
// $1 is the client's role, and it returns that role and its pg_authid.rolpassword, in
// one row or none. The zero one is none.
type AuthQuery struct {
	Role      string // that asks, one of Database.Roles
	Statement string
}

// ChecksPasswords reports whether there is anything by which the passwords of clients
// could be checked.
func (d Database) ChecksPasswords() bool { return d.Verifiers != "" || d.Query != AuthQuery{} }

// VerifiedBy names that: under another name it is something else.
func (d Database) VerifiedBy() string {
	if d.Query != (AuthQuery{}) {
		return fmt.Sprintf("query by %q: %s", d.Query.Role, d.Query.Statement)
	}
	return string(d.Verifiers)
}
