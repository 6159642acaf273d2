package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/armordb/armordb/chaos/site"
)

// replicationConfig lets one identity replicate, and another only query, by the same
// role of the same database.
const replicationConfig = `apiVersion: armor/v1
kind: Identity
metadata: {name: walker, environment: dev}
spec:
  id: %[1]s-walker
  owner: acceptance
  grants:
  - {database: app, roles: [app], pool: app, replication: %[2]t}
`

func (a *arena) applyReplication(t *testing.T, allowed bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "replication.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, replicationConfig, demoIdentity, allowed), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ctl(t, "apply", "-f", file, "--yes", "--wait", "all")
}

// certificateOf is what libpq needs to show a certificate.
func certificateOf(dir string) []string {
	return []string{"PGSSLCERT=" + filepath.Join(dir, "client.crt"), "PGSSLKEY=" + filepath.Join(dir, "client.key")}
}

// background is a tool that goes on until somebody ends it.
type background struct {
	mu    sync.Mutex
	out   bytes.Buffer
	ended chan error
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *background) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

// start runs a tool beside the test.
func (a *arena) startTool(t *testing.T, extra []string, program string, args ...string) *background {
	t.Helper()
	b := &background{ended: make(chan error, 1)}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=20", "PGAPPNAME="+program)
	for name, value := range a.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, extra...)
	cmd.Stdout, cmd.Stderr = b, b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.ended <- cmd.Wait() }()
	return b
}

// awaitSenders waits until PostgreSQL streams to exactly these programs, and all that it
// has sent has arrived.
func (a *arena) awaitSenders(t *testing.T, want string) {
	t.Helper()
	eventually(t, "PostgreSQL streams to "+want, func() bool {
		return a.admin(t, "select coalesce(string_agg(application_name, ' ' order by application_name), '') from pg_stat_replication where state = 'streaming' and write_lsn = sent_lsn") == want
	})
}

// TestReplicationNeedsAGrantAndACertificate, with PostgreSQL's own tools, through the
// load balancer.
func TestReplicationNeedsAGrantAndACertificate(t *testing.T) {
	a := acceptance(t)
	a.alter(t, "alter role "+site.AppRole+" replication")
	a.applyReplication(t, true)
	walker, _ := a.issued(t, "walker")
	dir := t.TempDir()

	_, says, err := a.run(t, nil, "pg_basebackup", "-D", filepath.Join(dir, "refused"), "-w")
	if err == nil || !strings.Contains(says, "may not open replication connections") || !strings.Contains(says, "armorctl explain") {
		t.Errorf("without a grant: %v: %s", err, says)
	}
	if _, says, err := a.run(t, certificateOf(walker), "pg_basebackup", "-D", filepath.Join(dir, "base"), "-X", "stream", "-c", "fast",
		"--no-sync", "-w"); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, says)
	}
	if _, err := os.Stat(filepath.Join(dir, "base", "backup_manifest")); err != nil {
		t.Error(err)
	}
	a.decodes(t, certificateOf(walker))
}

// alter runs a statement as superuser.
func (a *arena) alter(t *testing.T, sql string) {
	t.Helper()
	conn, err := a.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// decodes streams changes by both of the plugins that come with PostgreSQL.
func (a *arena) decodes(t *testing.T, certificate []string) {
	t.Helper()
	a.alter(t, "create publication everything for all tables")
	defer a.alter(t, "drop publication everything")
	options := map[string][]string{
		"test_decoding": nil,
		"pgoutput":      {"-o", "proto_version=1", "-o", "publication_names=everything"},
	}
	for plugin, more := range options {
		if _, says, err := a.run(t, certificate, "pg_recvlogical", "-d", site.AppDatabase, "-S", plugin, "-P", plugin, "--create-slot",
			"-w"); err != nil {
			t.Fatalf("%s: %v: %s", plugin, err, says)
		}
		a.alter(t, "insert into ledger values ('decoded by "+plugin+"')")
		until := a.admin(t, "select pg_current_wal_lsn()::text")
		out, says, err := a.run(t, certificate, "pg_recvlogical",
			append([]string{"-d", site.AppDatabase, "-S", plugin, "--start", "-f", "-", "-E", until, "-w"}, more...)...)
		if err != nil || !strings.Contains(out, "decoded by "+plugin) {
			t.Errorf("%s: %v: %s%s", plugin, err, out, says)
		}
		if _, says, err := a.run(t, certificate, "pg_recvlogical", "-d", site.AppDatabase, "-S", plugin, "--drop-slot", "-w"); err != nil {
			t.Errorf("%s: %v: %s", plugin, err, says)
		}
	}
}

// TestRevocationCutsWhatStreams: a certificate revoked, and a grant that allows
// replication no longer. The server connection ends, and the client reads why.
func TestRevocationCutsWhatStreams(t *testing.T) {
	a := acceptance(t)
	a.alter(t, "alter role "+site.AppRole+" replication")
	for name, c := range map[string]struct {
		end  func(dir string)
		says string
	}{
		"revoked": {func(dir string) {
			a.ctl(t, "revoke", "--file", filepath.Join(dir, "client.crt"), "--reason", "superseded", "--yes")
		}, "revoked"},
		"grant narrowed": {func(string) { a.applyReplication(t, false) }, "may not open replication connections"},
	} {
		t.Run(name, func(t *testing.T) {
			a.applyReplication(t, true)
			dir, _ := a.issued(t, "walker")
			wal := a.startTool(t, certificateOf(dir), "pg_receivewal", "-D", t.TempDir(), "-n", "-s", "1", "--no-sync", "-w")
			a.awaitSenders(t, "pg_receivewal")
			c.end(dir)
			if err := <-wal.ended; err == nil || !strings.Contains(wal.said(), c.says) {
				t.Errorf("pg_receivewal ended with %v: %s", err, wal.said())
			}
			a.awaitSenders(t, "")
		})
	}
}
