package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/chaos/site"
)

// TestDriversConnectByEveryFormat: what cert issue writes, and what cert renew puts in its
// place, is what each reader takes as it is.
func TestDriversConnectByEveryFormat(t *testing.T) {
	a := acceptance(t)
	dir := filepath.Join(t.TempDir(), "certificate")
	a.ctl(t, "cert", "issue", "demo", "--environment", "dev", "--ca", a.clientCA(), "--owner", "acceptance", "--out", dir,
		"--server-ca", a.Env["PGSSLROOTCERT"], "--format", "pem,pk8,p12,env,pg_service", "--database", "app")
	a.everyFormatConnects(t, dir)
	a.ctl(t, "cert", "renew", dir, "--ca", a.clientCA())
	a.everyFormatConnects(t, dir)
	password := "chosen, not made up"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	a.ctl(t, "cert", "issue", "demo", "--environment", "dev", "--ca", a.clientCA(), "--owner", "acceptance", "--out", other,
		"--server-ca", a.Env["PGSSLROOTCERT"], "--format", "p12", "--p12-password-file", file)
	a.javaConnects(t, other, "client.p12", password)
}

func (a *arena) everyFormatConnects(t *testing.T, dir string) {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(dir, "client.p12.password"))
	if err != nil {
		t.Fatal(err)
	}
	a.javaConnects(t, dir, "client.pk8")
	a.javaConnects(t, dir, "client.p12", strings.TrimSpace(string(password)))
	s := seat{dir: dir}
	bare := []string{"env", "-i", "PATH=" + os.Getenv("PATH"), "PGCONNECT_TIMEOUT=20"}
	for what, command := range map[string][]string{
		"pg_service": {"PGSERVICEFILE=" + filepath.Join(dir, "pg_service.conf"), "PGSERVICE=app", "psql", "-XAtc", "select current_user"},
		"env":        {"sh", "-c", `. ./client.env; psql -XAtc "select current_user"`},
	} {
		if out, err := s.run(t, append(slices.Clone(bare), command...)); err != nil || strings.TrimSpace(out) != site.AppRole {
			t.Errorf("psql by %s: %v: %s", what, err, out)
		}
	}
}

func (a *arena) javaConnects(t *testing.T, dir string, args ...string) {
	t.Helper()
	i := slices.IndexFunc(drivers, func(d driver) bool { return d.name == "JDBC" })
	s := seat{dir: dir, host: "localhost", port: a.Env["PGPORT"], database: "app"}
	if out, err := s.run(t, drivers[i].check); err != nil {
		t.Fatalf("apt-get install --no-install-recommends %s (%v: %s)", drivers[i].debian, err, out)
	}
	program, err := filepath.Abs("testdata/formats/Connect.java")
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.run(t, append([]string{"java", "-cp", jdbcJar, program}, args...))
	if err != nil || strings.TrimSpace(out) != site.AppRole {
		t.Errorf("pgjdbc by %s: %v: %s", args[0], err, out)
	}
}
