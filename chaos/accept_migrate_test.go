package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/process"
	"github.com/armordb/armordb/chaos/site"
)

// TestMigrationPageIsTrue runs docs/migrate-from-pgbouncer.md, every block of it, with a
// real PgBouncer and HAProxy beside the cluster.
func TestMigrationPageIsTrue(t *testing.T) {
	a := acceptance(t)
	for _, program := range []string{"pgbouncer", "haproxy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is not in PATH (Debian: apt-get install %s)", program, program)
		}
	}
	a.createDatabase(t, "reports")
	dir := filepath.Join(a.dir, "migration") // PgBouncer's user must get through to it
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bouncer, balancer := mustPort(t), mustPort(t)
	armor := a.Env["PGPORT"]
	var secrets []string
	for _, n := range a.Nodes {
		secrets = append(secrets, filepath.Join(n.Dir, "secrets"))
	}
	p := page{
		path: "../docs/migrate-from-pgbouncer.md", dir: dir,
		env: []string{
			"PATH=" + filepath.Join(a.dir, "bin") + ":/usr/sbin:" + os.Getenv("PATH"), "ARMOR_CONFIG=" + a.Env["ARMOR_CONFIG"],
			"SECRETS=" + strings.Join(secrets, " "), "PGCONNECT_TIMEOUT=20",
		},
		replace: []string{
			"pg1.acme.test port=5432", fmt.Sprintf("127.0.0.1 port=%d", a.pg.Port),
			"bouncer.acme.test port=6432", fmt.Sprintf("127.0.0.1 port=%d", bouncer),
			"bouncer.acme.test:6432", fmt.Sprintf("127.0.0.1:%d", bouncer),
			"listen_port = 6432", fmt.Sprintf("listen_port = %d", bouncer),
			"db.acme.test port=6432", "localhost port=" + armor,
			"db.acme.test:6432", "127.0.0.1:" + armor,
			"lb.acme.test:5432", fmt.Sprintf("127.0.0.1:%d", balancer),
			"localhost port=5432", fmt.Sprintf("localhost port=%d", balancer),
			"correct horse", site.AppPassword,
			"./production-ca", a.clientCA(),
			"production.acme.internal", "dev.armor-dev.internal",
			"production", "dev",
		},
		before: map[string]func(){"1. What there is": func() { a.beginPgBouncer(t, dir, bouncer) }},
	}
	t.Cleanup(func() { endBalancer(t, filepath.Join(dir, "haproxy.pid")) })
	p.run(t)
}

// endBalancer ends what the page has begun and, if it was cut short, not ended.
func endBalancer(t *testing.T, pidFile string) {
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		if name, err := os.ReadFile(filepath.Join("/proc", word, "comm")); err == nil && strings.HasPrefix(string(name), "haproxy") {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
}

func mustPort(t *testing.T) int {
	t.Helper()
	port, err := site.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// createDatabase makes a database of the application's role until the test ends.
func (a *arena) createDatabase(t *testing.T, name string) {
	t.Helper()
	run := func(ctx context.Context, sql string) {
		conn, err := a.pg.Admin(ctx, "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	run(t.Context(), "CREATE DATABASE "+name+" OWNER "+site.AppRole)
	t.Cleanup(func() { run(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)") })
}

// beginPgBouncer runs the PgBouncer of the page until the test ends, with a node's
// certificate, since clients go from one to the other.
func (a *arena) beginPgBouncer(t *testing.T, dir string, port int) {
	t.Helper()
	for _, name := range []string{"server.crt", "server.key"} {
		content, err := os.ReadFile(filepath.Join(a.Nodes[0].Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { // PgBouncer's user reads it
			t.Fatal(err)
		}
	}
	credential, err := site.Unprivileged(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pgbouncer", "-q", "pgbouncer.ini")
	cmd.Dir, cmd.SysProcAttr = dir, credential
	p, err := process.Start(cmd, filepath.Join(dir, "pgbouncer.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(syscall.SIGINT, 10*time.Second); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "PgBouncer listens", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}
