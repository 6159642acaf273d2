package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// rotated is an environment of its own beside dev, whose clients are taken from one CA to another.
type rotated struct {
	*arena
	name, dir string
	balancer  *site.Node
}

const rotatedConfig = `apiVersion: armor/v1
kind: Database
metadata: {name: app, environment: %[1]s}
spec:
  hosts: ["127.0.0.1:%[2]d"]
  dbname: app
  tls: {mode: disable}
  auth: {roles: {app: {secret: app}}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: app, environment: %[1]s}
spec: {database: app, mode: transaction, budget: 6}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: all, environment: %[1]s}
spec:
  id: spiffe://%[1]s.test/*
  owner: acceptance
  grants: [{database: app, roles: [app], pool: app}]
`

// toRotate makes an environment with two CAs, old and next.
func (a *arena) toRotate(t *testing.T, name string) *rotated {
	t.Helper()
	port, err := strconv.Atoi(a.Env["PGPORT"])
	if err != nil {
		t.Fatal(err)
	}
	r := &rotated{arena: a, name: name, dir: t.TempDir(), balancer: &site.Node{Name: "balancer", Port: port}}
	for _, ca := range []string{"old", "next"} {
		a.ctl(t, "ca", "init", "--environment", name, "--out", r.path(ca), "--name", ca, "--trust-domain", name+".test", "--unencrypted")
	}
	manifest := r.path("cluster.yaml")
	if err := os.WriteFile(manifest, fmt.Appendf(nil, rotatedConfig, name, a.pg.Port), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ctl(t, "apply", "-f", manifest, "--add-budgets")
	t.Cleanup(func() { // leaves the other tests their budget
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := a.Armorctl(ctx, "revoke", "spiffe://"+name+".test/*", "--reason", "superseded", "--yes"); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rotated) path(name string) string { return filepath.Join(r.dir, name) }

// issue makes a certificate of a CA; replaces is the serial of another, or empty.
func (r *rotated) issue(t *testing.T, app, ca, out, replaces string) site.Client {
	t.Helper()
	args := []string{"cert", "issue", "spiffe://" + r.name + ".test/" + app, "--environment", r.name, "--ca", r.path(ca), "--owner", "acceptance", "--out", r.path(out)}
	if replaces != "" {
		args = append(args, "--replaces", replaces)
	}
	r.ctl(t, args...)
	c, err := site.LoadClient(r.path(out+"/client.crt"), r.path(out+"/client.key"), r.Env["PGSSLROOTCERT"])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rotationNow is what armorctl says of a rotation.
type rotationNow struct {
	Phase    string   `json:"phase"`
	Blocked  []string `json:"blocked"`
	Sessions []struct {
		Identity string `json:"identity"`
		Sessions int    `json:"sessions"`
	} `json:"sessions"`
	Holders []struct {
		Serial string `json:"serial"`
	} `json:"holders"`
	Result struct {
		Complete bool `json:"complete"`
		Nodes    []struct {
			Closed int `json:"sessionsClosed"`
		} `json:"nodes"`
	} `json:"result"`
}

func (r *rotated) rotate(t *testing.T, verb string, more ...string) (now rotationNow) {
	t.Helper()
	out := r.ctl(t, slices.Concat([]string{"ca", "rotate", verb, "--environment", r.name, "--yes", "-o", "json"}, more)...)
	if err := json.Unmarshal(out, &now); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return now
}

// until goes on to a phase.
func (r *rotated) until(t *testing.T, phase string) {
	t.Helper()
	if now := r.rotate(t, "advance", "--until", phase, "--timeout", "1m"); now.Phase != phase {
		t.Fatalf("environment %s: on the way to %s in phase %s: %q", r.name, phase, now.Phase, now.Blocked)
	}
}

func (r *rotated) start(t *testing.T, more ...string) rotationNow {
	t.Helper()
	return r.rotate(t, "start", slices.Concat([]string{"--from", "old", "--to", "next", "--watch", "0s"}, more)...)
}

// traffic is apps that connect through the balancer, work and leave, over and over, with the
// certificate that is in their folder by then.
type traffic struct {
	r       *rotated
	client  atomic.Pointer[site.Client]
	done    atomic.Int64
	mu      sync.Mutex // guards failed
	failed  []error
	workers sync.WaitGroup
	stop    context.CancelFunc
}

func (r *rotated) traffic(t *testing.T, c site.Client) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	w := &traffic{r: r, stop: stop}
	w.client.Store(&c)
	for range 3 {
		w.workers.Go(func() {
			for ctx.Err() == nil {
				if err := w.work(context.WithoutCancel(ctx)); err != nil {
					w.mu.Lock()
					w.failed = append(w.failed, err)
					w.mu.Unlock()
				}
				w.done.Add(1)
			}
		})
	}
	t.Cleanup(func() { w.end(t) })
	return w
}

func (w *traffic) work(ctx context.Context) error {
	conn, err := w.client.Load().Connect(ctx, w.r.balancer)
	if err != nil {
		return err
	}
	defer site.CloseConn(ctx, conn)
	for range 5 {
		if err := site.Exec(ctx, conn, "begin; select 1; commit"); err != nil {
			return err
		}
	}
	return nil
}

// renew has the apps come with another certificate, and waits until those that came with the
// former one have left.
func (w *traffic) renew(t *testing.T, c site.Client) {
	t.Helper()
	w.client.Store(&c)
	before := w.done.Load()
	eventually(t, "the apps come with the new certificate", func() bool { return w.done.Load() >= before+2*3 })
}

func (w *traffic) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.workers.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failed) > 0 {
		t.Errorf("environment %s: %d of %d visits failed: %v", w.r.name, len(w.failed), w.done.Load(), errors.Join(w.failed[:min(3, len(w.failed))]...))
	}
}

// pgbench runs until it is stopped, and reports failed transactions.
func (r *rotated) pgbench(t *testing.T, folder string) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binOfPostgres(t), "pgbench"),
		"-n", "-c", "4", "-j", "1", "-T", "600", "-M", "prepared", "-f", r.script(t))
	cmd.Env = append(os.Environ(), "PGHOST=localhost", "PGPORT="+r.Env["PGPORT"], "PGDATABASE=app", "PGUSER=app", "PGSSLMODE=verify-full",
		"PGSSLROOTCERT="+r.Env["PGSSLROOTCERT"], "PGSSLCERT="+r.path(folder+"/client.crt"), "PGSSLKEY="+r.path(folder+"/client.key"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Errorf("pgbench in environment %s has ended by itself: %v: %s", r.name, err, out.String())
		}
		_ = cmd.Wait()
		if strings.Contains(out.String(), "FATAL") || strings.Contains(out.String(), "aborted") || strings.Contains(out.String(), "error") {
			t.Errorf("pgbench in environment %s: %s", r.name, out.String())
		}
	}
}

func (r *rotated) script(t *testing.T) string {
	t.Helper()
	path := r.path("script.sql")
	if err := os.WriteFile(path, []byte("select 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var rotationPhases = []string{"staged", "issuing", "taint", "shadow-distrust", "distrusted"}

// TestThreeEnvironmentsAreRotatedUnderLoad, at once, with a rollback from each phase: no app that
// takes up its new certificate in time sees anything of it.
func TestThreeEnvironmentsAreRotatedUnderLoad(t *testing.T) {
	a := acceptance(t)
	t.Run("at once", func(t *testing.T) {
		for _, name := range []string{"rotated-a", "rotated-b", "rotated-c"} {
			r := a.toRotate(t, name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r.wholeWay(t)
			})
		}
	})
}

func (r *rotated) wholeWay(t *testing.T) {
	apps := r.traffic(t, r.issue(t, "app", "old", "first", ""))
	var bench func()
	for _, phase := range rotationPhases {
		r.start(t)
		if phase != "staged" {
			r.until(t, "issuing")
		}
		if phase == "issuing" { // the first time that there are certificates of the new CA
			holders := r.rotate(t, "status").Holders
			if len(holders) == 0 {
				now := r.rotate(t, "plan", "--from", "old", "--to", "next")
				holders = now.Holders
			}
			if len(holders) != 1 {
				t.Fatalf("environment %s: %d certificates of the old CA, want one", r.name, len(holders))
			}
			apps.renew(t, r.issue(t, "app", "next", "second", holders[0].Serial))
			bench = r.pgbench(t, "second")
		}
		r.until(t, phase)
		if phase == "distrusted" {
			r.rotate(t, "rollback") // to shadow-distrust
			r.until(t, "distrusted")
			r.rotate(t, "finish")
			break
		}
		r.rotate(t, "rollback")
	}
	if err := r.ping(t, "first"); err == nil || !strings.Contains(err.Error(), "revoked") && !strings.Contains(err.Error(), "not trusted any more") {
		t.Errorf("environment %s: a certificate of the old CA in the end: %v", r.name, err)
	}
	bench()
	apps.end(t)
}

// ping connects with the certificate in a folder.
func (r *rotated) ping(t *testing.T, folder string) error {
	t.Helper()
	c, err := site.LoadClient(r.path(folder+"/client.crt"), r.path(folder+"/client.key"), r.Env["PGSSLROOTCERT"])
	if err != nil {
		t.Fatal(err)
	}
	return c.Ping(t.Context(), r.balancer)
}

// TestARotationOutlivesItsLeaders: in each phase the leader is killed, and the rotation waits for it
// and goes on where it was.
func TestARotationOutlivesItsLeaders(t *testing.T) {
	a := acceptance(t)
	r := a.toRotate(t, "rotated-leaders")
	r.issue(t, "app", "old", "first", "")
	serial := r.rotate(t, "plan", "--from", "old", "--to", "next").Holders[0].Serial
	r.start(t)
	for i, phase := range rotationPhases {
		if phase == "taint" {
			r.issue(t, "app", "next", "second", serial)
		}
		r.until(t, phase)
		leader, err := a.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a.kill(t, leader)
		eventually(t, "another leads", func() bool {
			n, err := a.Leader(t.Context())
			return err == nil && n != leader
		})
		if now := r.rotate(t, "status"); now.Phase != phase {
			t.Errorf("after the leader was killed in phase %s: phase %s", phase, now.Phase)
		}
		if phase != "distrusted" {
			out, err := a.Armorctl(t.Context(), "ca", "rotate", "advance", "--environment", r.name, "--yes")
			if err == nil || !strings.Contains(err.Error(), leader.Name) {
				t.Errorf("while node %s is gone the rotation goes on: %v: %s", leader.Name, err, out)
			}
		}
		if err := a.Start(leader); err != nil {
			t.Fatal(err)
		}
		if err := a.AwaitServing(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := r.ping(t, "first"); (err == nil) != (phase != "distrusted") {
			t.Errorf("in phase %s, by the old CA: %v", phase, err)
		}
		if i >= slices.Index(rotationPhases, "taint") {
			if err := r.ping(t, "second"); err != nil {
				t.Errorf("in phase %s, by the new CA: %v", phase, err)
			}
		}
	}
	r.rotate(t, "finish")
}

// TestACompromisedCAIsCutAtOnce, and exactly those sessions that were listed.
func TestACompromisedCAIsCutAtOnce(t *testing.T) {
	a := acceptance(t)
	r := a.toRotate(t, "rotated-cut")
	live := map[string]int{"one": 2, "two": 1, "three": 0}
	old := map[string]site.Client{}
	for app := range live {
		old[app] = r.issue(t, app, "old", app, "")
	}
	safe, err := r.issue(t, "safe", "next", "safe", "").Connect(t.Context(), r.balancer)
	if err != nil {
		t.Fatal(err)
	}
	defer site.CloseConn(t.Context(), safe)
	var doomed []func(context.Context) error
	for app, n := range live {
		for range n {
			conn, err := old[app].Connect(t.Context(), r.balancer)
			if err != nil {
				t.Fatal(err)
			}
			defer site.CloseConn(t.Context(), conn)
			doomed = append(doomed, conn.WaitForNotification)
		}
	}
	planned := r.rotate(t, "plan", "--from", "old", "--to", "next")
	listed := map[string]int{}
	for _, s := range planned.Sessions {
		listed[s.Identity[strings.LastIndex(s.Identity, "/")+1:]] = s.Sessions
	}
	if len(listed) != 2 || listed["one"] != 2 || listed["two"] != 1 || len(planned.Holders) != 3 {
		t.Errorf("listed: %v, and %d certificates", listed, len(planned.Holders))
	}
	now := r.start(t, "--compromised")
	closed := 0
	for _, n := range now.Result.Nodes {
		closed += n.Closed
	}
	if now.Phase != "distrusted" || !now.Result.Complete || closed != len(doomed) {
		t.Errorf("phase %s, complete %t, %d sessions closed of %d", now.Phase, now.Result.Complete, closed, len(doomed))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, wait := range doomed {
		if err := wait(ctx); err == nil || !strings.Contains(err.Error(), "not trusted any more") {
			t.Errorf("a session of the old CA ends by %v", err)
		}
	}
	if err := site.Exec(t.Context(), safe, "select 1"); err != nil {
		t.Errorf("a session of the new CA: %v", err)
	}
	if err := r.ping(t, "three"); err == nil {
		t.Error("who was not connected gets in")
	}
	r.rotate(t, "finish")
}

// TestRotationPageWorks runs the page word for word.
func TestRotationPageWorks(t *testing.T) {
	a := acceptance(t)
	dir := t.TempDir()
	// What the reader has: an environment with a CA, and an app with a certificate of it.
	a.ctl(t, "ca", "init", "--environment", "rotated-page", "--out", filepath.Join(dir, "ca", "rotated-page-2026"), "--name", "rotated-page-2026",
		"--trust-domain", "rotated-page.acme.internal", "--unencrypted")
	a.ctl(t, "cert", "issue", "spiffe://rotated-page.acme.internal/app/checkout", "--environment", "rotated-page",
		"--ca", filepath.Join(dir, "ca", "rotated-page-2026"), "--owner", "payments", "--out", filepath.Join(dir, "checkout"))
	p := page{
		path: "../docs/rotate.md", dir: dir,
		env:     []string{"PATH=" + filepath.Join(a.dir, "bin") + ":" + os.Getenv("PATH"), "ARMOR_CONFIG=" + a.Env["ARMOR_CONFIG"]},
		replace: []string{"production", "rotated-page"},
	}
	p.run(t)
}
