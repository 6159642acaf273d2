package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// passwordConfig asks for a password beside the certificate. The role "nobody" may be
// asked for, and has no verifier. Later, the other identity is asked for one, too.
const passwordConfig = `apiVersion: armor/v1
kind: Database
metadata: {name: app_password, environment: dev}
spec:
  hosts: ["127.0.0.1:%[1]d"]
  dbname: app
  tls: {mode: disable}
  auth: {roles: {app: {secret: app}, nobody: {}}, verifiers: {secret: %[2]s}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: app_password, environment: dev}
spec: {database: app_password, mode: transaction, budget: 6}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: asked, environment: dev}
spec:
  id: %[3]s-asked
  owner: acceptance
  grants:
  - {database: app_password, roles: [app, nobody], pool: app_password, secondFactor: scram}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: asked-later, environment: dev}
spec:
  id: %[3]s-asked-later
  owner: acceptance
  grants:
  - {database: app_password, roles: [app], pool: app_password%[4]s}
`

// applyPasswords puts passwordConfig in force on all nodes.
func (a *arena) applyPasswords(t *testing.T, verifiers, later string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, passwordConfig, a.pg.Port, verifiers, demoIdentity, later), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ctl(t, "apply", "-f", file, "--yes", "--wait", "all", "--add-budgets")
}

// writeVerifiers gives every node PostgreSQL's own verifier of the application's role.
func (a *arena) writeVerifiers(t *testing.T, name string) {
	t.Helper()
	verifier := a.admin(t, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+site.AppRole+"'")
	for _, n := range a.Nodes {
		line := fmt.Sprintf("%q %q\n", site.AppRole, verifier)
		if err := os.WriteFile(filepath.Join(n.Dir, "secrets", name+".verifiers"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// issued makes a certificate for an Identity object.
func (a *arena) issued(t *testing.T, name string) (dir string, app site.Client) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	a.ctl(t, "cert", "issue", name, "--environment", "dev", "--ca", a.clientCA(), "--owner", "acceptance", "--out", dir)
	return dir, a.loaded(t, dir)
}

// TestPasswordIsASecondFactor: beside the certificate, never instead of it.
func TestPasswordIsASecondFactor(t *testing.T) {
	a := acceptance(t)
	a.applyPasswords(t, "apps", "")
	dir, app := a.issued(t, "asked")
	_, later := a.issued(t, "asked-later")
	right, wrong, others := app, app, a.demoClient(t)
	right.Password, wrong.Password, others.Password = site.AppPassword, "not "+site.AppPassword, site.AppPassword

	const db = "app_password"
	for _, n := range a.Nodes {
		a.refused(t, right, n, db, site.AppRole, "57P03", "cannot check passwords")
	}
	if status := string(a.ctl(t, "status")); !strings.Contains(status, "verifiers apps") {
		t.Errorf("armorctl status does not say what is missing:\n%s", status)
	}
	a.writeVerifiers(t, "apps")
	for _, n := range a.Nodes {
		a.refused(t, wrong, n, db, site.AppRole, "28P01", `password authentication failed for user "`+site.AppRole+`"`)
		a.refused(t, right, n, db, "nobody", "28P01", `password authentication failed for user "nobody"`)
		a.refused(t, others, n, db, site.AppRole, "28000", "may not reach database")
		conn, err := right.ConnectTo(t.Context(), n, db)
		if err != nil {
			t.Fatal(err)
		}
		if err := site.Exec(t.Context(), conn, "select 1"); err != nil {
			t.Error(err)
		}
		site.CloseConn(t.Context(), conn)
	}
	a.psqlProvesItsPassword(t, dir)
	a.laterDemandsCutSessions(t, right, later)
}

// psqlProvesItsPassword, bound to the channel, through the load balancer.
func (a *arena) psqlProvesItsPassword(t *testing.T, dir string) {
	t.Helper()
	env := []string{
		"PGSSLCERT=" + filepath.Join(dir, "client.crt"), "PGSSLKEY=" + filepath.Join(dir, "client.key"),
		"PGDATABASE=app_password", "PGCHANNELBINDING=require", "PGPASSFILE=/dev/null",
	}
	if got := a.psql(t, append(env, "PGPASSWORD="+site.AppPassword), "-c", "select current_user"); got != site.AppRole {
		t.Errorf("psql is %q", got)
	}
	_, errOut, err := a.run(t, append(env, "PGPASSWORD=wrong"), "psql", "-Xwc", "select 1")
	if err == nil || !strings.Contains(errOut, "password authentication failed") || !strings.Contains(errOut, "armorctl explain") {
		t.Errorf("psql with a wrong password: %v: %s", err, errOut)
	}
	_, errOut, err = a.run(t, append(env, "PGPASSWORD="), "psql", "-Xwc", "select 1")
	if err == nil || !strings.Contains(errOut, "no password supplied") {
		t.Errorf("psql without a password: %v: %s", err, errOut)
	}
}

// laterDemandsCutSessions: a second factor that is added ends the sessions that have
// not proved it, and other verifiers those that proved it by the former ones.
func (a *arena) laterDemandsCutSessions(t *testing.T, asked, notAsked site.Client) {
	t.Helper()
	proven, err := asked.ConnectTo(t.Context(), a.Nodes[0], "app_password")
	if err != nil {
		t.Fatal(err)
	}
	defer site.CloseConn(t.Context(), proven)
	unproven, err := notAsked.ConnectTo(t.Context(), a.Nodes[1], "app_password")
	if err != nil {
		t.Fatal(err)
	}
	defer site.CloseConn(t.Context(), unproven)

	a.applyPasswords(t, "apps", ", secondFactor: scram")
	endsUnproved(t, unproven)
	if err := site.Exec(t.Context(), proven, "select 1"); err != nil {
		t.Errorf("the session that has proved its password: %v", err)
	}
	a.writeVerifiers(t, "apps-next")
	a.applyPasswords(t, "apps-next", ", secondFactor: scram")
	endsUnproved(t, proven)
}

// endsUnproved waits for the FATAL that asks for a password.
func endsUnproved(t *testing.T, conn *pgconn.PgConn) {
	t.Helper()
	if err := conn.Conn().SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var refusal *pgconn.PgError
	if err := readUntilEnd(conn.Conn(), nil); !errors.As(err, &refusal) {
		t.Errorf("ended by %v", err)
		return
	}
	if refusal.Code != "28000" || !strings.Contains(refusal.Message, "must prove a password") {
		t.Errorf("ended by %s: %s", refusal.Code, refusal.Message)
	}
}
