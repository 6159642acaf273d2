package armor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// The bounds of a database.
const (
	maxHosts = 16
	// MaxRoles bounds the roles of a database, and of a grant.
	MaxRoles = 256
	// maxAuthQuery bounds a statement, in bytes.
	maxAuthQuery = 4096
)

// CheckDatabaseName reports whether a Database object may have the name: not that of
// the admin console.
func CheckDatabaseName(name string) error {
	if IsConsole(name) {
		return fmt.Errorf("%w: name %q is the admin console's: call the Database otherwise", ErrInvalid, name)
	}
	if IsTemplate(name) {
		return nil
	}
	return CheckName("name", name)
}

// CheckDatabaseReference reports whether s can name the database of a pool or a grant.
func CheckDatabaseReference(s string) error {
	if IsTemplate(s) {
		return nil
	}
	return CheckName("database", s)
}

// Check returns the FieldErrors of a database.
func (d Database) Check() error {
	var f faults
	f.note(Field{"metadata", "name"}, CheckDatabaseName(d.Name))
	d.checkServers(&f)
	d.checkTLS(&f)
	f.secret(Field{"spec", "auth", "verifiers", "secret"}, d.Verifiers)
	d.checkRoles(&f)
	d.checkQuery(&f)
	return f.err()
}

func (d Database) checkServers(f *faults) {
	hosts := Field{"spec", "hosts"}
	switch {
	case len(d.Hosts) == 0:
		f.wrong(hosts, "give at least one host:port")
	case len(d.Hosts) > maxHosts:
		f.wrong(hosts, "%d hosts, more than %d", len(d.Hosts), maxHosts)
	}
	for i, h := range d.Hosts {
		f.note(hosts.In(i), CheckAddress("host", h, true))
	}
	switch wantsStandby := d.TargetSessionAttrs == Standby || d.TargetSessionAttrs == PreferStandby; {
	case d.MaxLag == 0:
	case d.MaxLag < ShortestTimeOut || d.MaxLag > LongestTimeOut:
		f.wrong(Field{"spec", "maxLag"}, "%s is not between %s and a year; 0s turns it off", d.MaxLag, ShortestTimeOut)
	case !wantsStandby:
		f.wrong(Field{"spec", "maxLag"}, "it is for standbys: set targetSessionAttrs to %s or %s", Standby, PreferStandby)
	}
	oneOf(f, Field{"spec", "targetSessionAttrs"}, d.TargetSessionAttrs, AnyWord, ReadWrite, ReadOnly, Primary, Standby, PreferStandby)
	oneOf(f, Field{"spec", "loadBalanceHosts"}, d.LoadBalanceHosts, InOrderWord, RandomHost)
	dbname := Field{"spec", "dbname"}
	switch template := IsTemplate(d.Name); {
	case template && d.DBName != "":
		f.wrong(dbname, "%q: the template opens the database that the client asks for, leave it out", clip(d.DBName))
	case !template && d.DBName == "":
		f.wrong(dbname, "give the database's name on the server")
	default:
		f.note(dbname, CheckText("dbname", d.DBName, maxPGName, false))
	}
}

func (d Database) checkTLS(f *faults) {
	mode := Field{"spec", "tls", "mode"}
	if d.TLSMode == "allow" || d.TLSMode == "prefer" {
		f.wrong(mode, "%q does without TLS whenever somebody in between wants it to: write verify-full, or disable if there is to be none",
			d.TLSMode)
	} else {
		oneOf(f, mode, d.TLSMode, "", TLSDisable, TLSRequire, TLSVerifyCA, TLSVerifyFull)
	}
	f.secret(Field{"spec", "tls", "ca", "secret"}, d.CA)
}

func (d Database) checkRoles(f *faults) {
	roles := Field{"spec", "auth", "roles"}
	if len(d.Roles) > MaxRoles {
		f.wrong(roles, "%d roles, more than %d", len(d.Roles), MaxRoles)
	}
	seen := map[string]bool{}
	for _, a := range d.Roles {
		at := roles.In(a.Role)
		if seen[a.Role] {
			f.wrong(at, "the role has two credentials")
		}
		seen[a.Role] = true
		d.checkAuth(f, at, a)
	}
}

// checkAuth refuses a way to log in that cannot work with the database.
func (d Database) checkAuth(f *faults, at Field, a RoleAuth) {
	f.note(at, CheckText("role", a.Role, maxPGName, true))
	f.secret(at.In("secret"), a.Secret)
	certificate := at.In("certificate", "secret")
	f.secret(certificate, a.Certificate)
	if a.MD5 && a.Secret == "" {
		f.wrong(at.In("allow"), "md5 is a way to prove a password, and the role has none: give it a secret")
	}
	switch {
	case a.Certificate == "":
	case d.TLSMode == TLSDisable:
		f.wrong(certificate, "a login with a certificate needs TLS: tls mode is disable")
	case slices.ContainsFunc(d.Hosts, path.IsAbs):
		f.wrong(certificate, "a login with a certificate needs TLS: over a Unix socket there is none")
	}
}

// checkQuery refuses an AuthQuery that cannot work with the database.
func (d Database) checkQuery(f *faults) {
	q, at := d.Query, Field{"spec", "auth", "query"}
	if q == (AuthQuery{}) {
		return
	}
	if d.Verifiers != "" {
		f.wrong(at, "passwords are checked by verifiers or by a query, not by both")
	}
	if _, known := d.Auth(q.Role); !known {
		f.wrong(at.In("role"), "%.64q, who asks for verifiers, is none of the database's roles", q.Role)
	}
	statement := at.In("statement")
	if len(q.Statement) > maxAuthQuery || strings.ContainsRune(q.Statement, 0) {
		f.wrong(statement, "it has more than %d bytes, or a zero byte", maxAuthQuery)
	}
	if !strings.Contains(q.Statement, "$1") {
		f.wrong(statement, "it has no $1, which is the role that it is asked about")
	}
}
