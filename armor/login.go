package armor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

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

// maxAuthQuery bounds a statement, in bytes.
const maxAuthQuery = 4096

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

// CheckTLSMode returns ErrInvalid for a mode that is none of ours.
func CheckTLSMode(mode TLSMode) error {
	switch {
	case slices.Contains([]TLSMode{TLSDisable, TLSRequire, TLSVerifyCA, TLSVerifyFull}, mode):
		return nil
	case mode == "allow" || mode == "prefer":
		return fmt.Errorf("%w: tls mode %q does without TLS whenever somebody in between wants it to: write verify-full, or disable if there is to be none", ErrInvalid, mode)
	}
	return fmt.Errorf("%w: tls mode %.40q is not one of disable, require, verify-ca, verify-full", ErrInvalid, mode)
}

// CheckAuth returns ErrInvalid for a way to log in that cannot work with the database.
func (d Database) CheckAuth(a RoleAuth) error {
	switch {
	case a.MD5 && a.Secret == "":
		return fmt.Errorf("%w: role %q is allowed md5 and has no password: give it a secret", ErrInvalid, a.Role)
	case a.Certificate != "" && d.TLSMode == TLSDisable:
		return fmt.Errorf("%w: role %q logs in with a certificate, which needs TLS: tls mode is disable", ErrInvalid, a.Role)
	case a.Certificate != "" && slices.ContainsFunc(d.Hosts, path.IsAbs):
		return fmt.Errorf("%w: role %q logs in with a certificate, which needs TLS: over a Unix socket there is none", ErrInvalid, a.Role)
	}
	return nil
}

// CheckQuery returns ErrInvalid for an AuthQuery that cannot work with the database.
func (d Database) CheckQuery() error {
	q := d.Query
	if q == (AuthQuery{}) {
		return nil
	}
	_, known := d.Auth(q.Role)
	switch {
	case d.Verifiers != "":
		return fmt.Errorf("%w: passwords are checked by verifiers or by a query, not by both", ErrInvalid)
	case !known:
		return fmt.Errorf("%w: the query for verifiers is asked by role %.64q, which is none of the database's roles", ErrInvalid, q.Role)
	case len(q.Statement) > maxAuthQuery || strings.ContainsRune(q.Statement, 0):
		return fmt.Errorf("%w: the query for verifiers has more than %d bytes, or a zero byte", ErrInvalid, maxAuthQuery)
	case !strings.Contains(q.Statement, "$1"):
		return fmt.Errorf("%w: the query for verifiers has no $1, which is the role that it is asked about", ErrInvalid)
	}
	return nil
}
