package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/chaos/site"
)

// The acceptance tests treat a real cluster as its users do: psql, pgbench and drivers
// against the load balancer, armorctl against the nodes, kill against the processes.
// All of them share one cluster, which `armord dev` runs, and do not depend on each
// other: each issues the certificates that it uses up.

// arena is the cluster that the acceptance tests share.
type arena struct {
	*site.Cluster
	pg   *site.Postgres
	dir  string
	stop func() error
}

var (
	arenaOnce sync.Once
	theArena  *arena
	arenaErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theArena != nil {
		if err := theArena.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the cluster:", err)
			code = max(code, 1)
		}
		if code != 0 {
			fmt.Fprintln(os.Stderr, "the cluster's files are kept in", theArena.dir)
		} else {
			os.RemoveAll(theArena.dir)
		}
	}
	os.Exit(code)
}

// acceptance returns the shared cluster, all of whose nodes serve.
func acceptance(t *testing.T) *arena {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a whole cluster; left out by -short")
	}
	arenaOnce.Do(func() { theArena, arenaErr = startArena() })
	if arenaErr != nil {
		t.Fatal(arenaErr)
	}
	if err := theArena.AwaitServing(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	return theArena
}

// arenaConfig has a pool in each mode in front of the same database.
const arenaConfig = `apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: dev}
spec: {database: app, mode: transaction, budget: 18}
---
apiVersion: armor/v1
kind: Database
metadata: {name: app_session, environment: dev}
spec:
  hosts: ["127.0.0.1:%[1]d"]
  dbname: app
  tls: {mode: disable}
  auth: {roles: {app: {secret: app}}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: app_session, environment: dev}
spec: {database: app_session, mode: session, budget: 18}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: demo, environment: dev}
spec:
  id: %[2]s
  owner: acceptance
  grants:
  - {database: app, roles: [app], pool: app}
  - {database: app_session, roles: [app], pool: app_session}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: elsewhere, environment: dev}
spec:
  id: %[2]s-elsewhere
  owner: acceptance
  grants:
  - {database: app, roles: [app], pool: app, cidrs: [192.0.2.0/24]}
`

func startArena() (*arena, error) {
	dir, err := os.MkdirTemp("", "armor-acceptance-")
	if err != nil {
		return nil, err
	}
	a := &arena{dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's user must get through
		return nil, err
	}
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "../cmd/armord", "../cmd/armorctl")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, out)
	}
	ctx := context.Background()
	if a.pg, err = startServer(ctx, filepath.Join(dir, "postgres"), "wal_level=logical"); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(arenaConfig, a.pg.Port, demoIdentity)
	c, dev, err := site.StartDev(ctx, site.Plan{Bin: bin, Dir: dir, Postgres: a.pg.URL(), Nodes: failoverNodes, Config: config})
	if err != nil {
		return nil, errors.Join(err, a.pg.Stop())
	}
	a.Cluster = c
	a.stop = func() error {
		a.StopAll() // those that a test has started again
		return errors.Join(dev.Stop(os.Interrupt, 40*time.Second), a.pg.Stop())
	}
	return a, nil
}

// demoIdentity is what `armord dev` calls the identity that it issues.
const demoIdentity = "spiffe://dev.armor-dev.internal/app/demo"

// run executes a program with the environment that DIR/env gives to shells, and extra
// variables, and returns its output.
func (a *arena) run(t *testing.T, extra []string, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=20")
	for name, value := range a.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, extra...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// kill ends a node's process at once.
func (a *arena) kill(t *testing.T, n *site.Node) {
	t.Helper()
	if err := n.Signal(syscall.SIGKILL); err == nil {
		n.AwaitEnd()
		return
	}
	pid := a.pid(t, n)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, n.Name+" is gone", func() bool { return syscall.Kill(pid, 0) != nil })
}

// psql must succeed.
func (a *arena) psql(t *testing.T, extra []string, args ...string) string {
	t.Helper()
	out, errOut, err := a.run(t, extra, "psql", append([]string{"-XAt", "-v", "ON_ERROR_STOP=1"}, args...)...)
	if err != nil {
		t.Fatalf("psql %s: %v: %s", strings.Join(args, " "), err, errOut)
	}
	return strings.TrimRight(out, "\n")
}

// ctl runs armorctl, which must succeed.
func (a *arena) ctl(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := a.Armorctl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fresh issues a certificate for the demo identity and returns the folder it is in.
func (a *arena) fresh(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certificate")
	a.ctl(t, "cert", "issue", "demo", "--environment", "dev", "--ca", a.clientCA(), "--owner", "acceptance", "--out", dir)
	return dir
}

func (a *arena) clientCA() string { return filepath.Join(a.Cluster.Dir, "ca", "dev-client") }

// admin asks PostgreSQL directly, as superuser.
func (a *arena) admin(t *testing.T, sql string) string {
	t.Helper()
	conn, err := a.pg.Admin(t.Context(), site.AppDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var answer string
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := site.Poll(ctx, func() (struct{}, error) {
		if condition() {
			return struct{}{}, nil
		}
		return struct{}{}, errors.New("not yet")
	})
	if err != nil {
		t.Fatalf("%s: did not come true", what)
	}
}

// readCA reads the client CA that `armord dev` has left for its operator.
func (a *arena) readCA(t *testing.T) signer {
	t.Helper()
	return loadSigner(t, filepath.Join(a.clientCA(), "ca.crt"), filepath.Join(a.clientCA(), "ca.key"))
}

func loadSigner(t *testing.T, certFile, keyFile string) signer {
	t.Helper()
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificatesPEM(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return signer{certs[0], key}
}
