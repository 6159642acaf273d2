package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/armordb/armordb/chaos/site"
)

// doomed is a live session whose access is about to be taken away.
type doomed struct {
	conn   *pgconn.PgConn
	tag    string // in the text of its query, so that PostgreSQL can be asked for it
	ended  chan error
	bytes  atomic.Int64 // of the result, received so far
	frozen chan struct{}
}

// states are what a session can be doing when it is cut.
var states = map[string]func(t *testing.T, a *arena, d *doomed){
	"idle": func(t *testing.T, a *arena, d *doomed) {
		if err := site.Exec(t.Context(), d.conn, "select 1"); err != nil {
			t.Fatal(err)
		}
		d.await()
	},
	"in a transaction": func(t *testing.T, a *arena, d *doomed) {
		if err := site.Exec(t.Context(), d.conn, "begin; select 1 /* "+d.tag+" */"); err != nil {
			t.Fatal(err)
		}
		d.await()
	},
	"in a query": func(t *testing.T, a *arena, d *doomed) {
		d.run("select pg_sleep(120) /* " + d.tag + " */")
		a.untilRuns(t, d.tag)
	},
	"streaming": func(t *testing.T, a *arena, d *doomed) {
		d.stream("select repeat('x', 1000), generate_series(1, 100000000) /* " + d.tag + " */")
		eventually(t, "rows arrive", func() bool { return d.bytes.Load() > 1<<20 })
	},
	"blocked on a full socket": func(t *testing.T, a *arena, d *doomed) {
		close(d.frozen) // nobody reads
		d.stream("select repeat('x', 1000), generate_series(1, 100000000) /* " + d.tag + " */")
		eventually(t, "PostgreSQL waits for us", func() bool {
			return a.admin(t, "select count(*)::text from pg_stat_activity where query like '%"+d.tag+"%' and wait_event = 'ClientWrite'") == "1"
		})
	},
	"in the middle of COPY": func(t *testing.T, a *arena, d *doomed) {
		reader, writer := io.Pipe()
		go func() {
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(writer, "%d\n", i); err != nil {
					return
				}
				if i%1000 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		t.Cleanup(func() { reader.Close() })
		go func() {
			_, err := d.conn.CopyFrom(context.WithoutCancel(t.Context()), reader, "copy ledger from stdin /* "+d.tag+" */")
			d.ended <- err
		}()
		a.untilRuns(t, d.tag)
	},
}

func (a *arena) untilRuns(t *testing.T, tag string) {
	t.Helper()
	eventually(t, "the query runs", func() bool {
		return a.admin(t, "select count(*)::text from pg_stat_activity where state = 'active' and query like '%"+
			tag+"%' and pid <> pg_backend_pid()") == "1"
	})
}

// run waits for a query's end.
func (d *doomed) run(sql string) {
	go func() {
		_, err := d.conn.Exec(context.Background(), sql).ReadAll()
		d.ended <- err
	}()
}

// await waits for what the server says unasked.
func (d *doomed) await() {
	go func() { d.ended <- readUntilEnd(d.conn.Conn(), nil) }()
}

// stream asks for a result and reads it as fast as it comes, or not at all.
func (d *doomed) stream(sql string) {
	message, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		d.ended <- err
		return
	}
	if _, err := d.conn.Conn().Write(message); err != nil {
		d.ended <- err
		return
	}
	select {
	case <-d.frozen:
		go func() { d.ended <- probeReset(d.conn.Conn()) }()
	default:
		go func() { d.ended <- readUntilEnd(d.conn.Conn(), &d.bytes) }()
	}
}

// readUntilEnd reads to the end of a stream and returns the FATAL that stood before it,
// or how it broke off.
func readUntilEnd(c net.Conn, count *atomic.Int64) error {
	var tail []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if count != nil {
			count.Add(int64(n))
		}
		tail = append(tail, buf[:n]...)
		tail = tail[max(0, len(tail)-4096):]
		if err == nil {
			continue
		}
		if i := bytes.LastIndex(tail, []byte("SFATAL\x00")); i >= 0 {
			e := &pgproto3.ErrorResponse{}
			if decodeErr := e.Decode(tail[i:]); decodeErr == nil {
				return &pgconn.PgError{Severity: e.Severity, Code: e.Code, Message: e.Message, Hint: e.Hint}
			}
		}
		return fmt.Errorf("broken off: %w", err)
	}
}

// probeReset waits, without reading, until writing to the connection fails.
func probeReset(c net.Conn) error {
	for range 600 {
		if _, err := c.Write([]byte{'H', 0, 0, 0, 4}); err != nil {
			return fmt.Errorf("broken off: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("still connected")
}

// TestRevocationEndsTheSessionWhateverItDoes is the product's main promise.
func TestRevocationEndsTheSessionWhateverItDoes(t *testing.T) {
	a := acceptance(t)
	for name, begin := range states {
		for _, place := range []string{"leader", "follower"} {
			t.Run(name+" on the "+place, func(t *testing.T) {
				n := a.nodeThat(t, place == "leader")
				dir := a.fresh(t)
				d := a.session(t, dir, n, strings.ReplaceAll(name+place, " ", ""))
				begin(t, a, d)
				a.revokedWith(t, d, n, func() []byte {
					return a.ctl(t, "revoke", "--file", filepath.Join(dir, "client.crt"), "--reason", "key-compromise", "--issued-before",
						"2001-01-01T00:00:00Z", "--yes", "-o", "json")
				}, name == "blocked on a full socket")
			})
		}
	}
}

// nodeThat returns the leader, or a node that is not.
func (a *arena) nodeThat(t *testing.T, leads bool) *site.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	leader, err := site.Poll(ctx, func() (*site.Node, error) { return a.Leader(ctx) })
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range a.Nodes {
		if (n == leader) == leads {
			return n
		}
	}
	return leader
}

func (a *arena) session(t *testing.T, dir string, n *site.Node, tag string) *doomed {
	t.Helper()
	conn, err := a.loaded(t, dir).Connect(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Conn().Close() })
	return &doomed{conn: conn, tag: tag, ended: make(chan error, 1), frozen: make(chan struct{})}
}

// enforcement is what armorctl revoke -o json says.
type enforcement struct {
	Result struct {
		Enforced bool `json:"enforced"`
		Nodes    []struct {
			Node     string `json:"node"`
			Enforced bool   `json:"enforced"`
			Closed   int    `json:"sessionsClosed"`
		} `json:"nodes"`
	} `json:"result"`
}

// revokedWith takes access away and checks what the client, PostgreSQL and the operator
// see of it.
func (a *arena) revokedWith(t *testing.T, d *doomed, n *site.Node, revoke func() []byte, unreadable bool) {
	t.Helper()
	begun := time.Now()
	answer := revoke()
	replied := time.Now()
	atReply := d.bytes.Load()
	select {
	case err := <-d.ended:
		checkFarewell(t, err, unreadable)
	case <-time.After(30 * time.Second):
		t.Fatal("the session has not ended")
	}
	// What lay in the sockets' buffers at the reply may still arrive, and nothing more.
	if late := d.bytes.Load() - atReply; late > 8<<20 {
		t.Errorf("%d bytes came after the reply", late)
	}
	eventually(t, "PostgreSQL runs nothing for the session", func() bool {
		return a.admin(t, "select count(*)::text from pg_stat_activity where query like '%"+d.tag+"%' and pid <> pg_backend_pid()") == "0"
	})
	t.Logf("revoke took %s; the backend was gone %s after the reply", replied.Sub(begun).Round(time.Millisecond),
		time.Since(replied).Round(time.Millisecond))
	if answer == nil {
		return
	}
	var e enforcement
	if err := json.Unmarshal(answer, &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Result.Nodes) != len(a.Nodes) {
		t.Fatalf("the reply names %d nodes: %s", len(e.Result.Nodes), answer)
	}
	for _, r := range e.Result.Nodes {
		if !r.Enforced || (r.Node == n.Name) != (r.Closed > 0) {
			t.Errorf("the reply says of %s: %+v", r.Node, r)
		}
	}
}

// checkFarewell accepts a FATAL that names the reason, or a connection broken off in the
// middle of a message.
func checkFarewell(t *testing.T, err error, unreadable bool) {
	t.Helper()
	refusal := (*pgconn.PgError)(nil)
	switch {
	case errors.As(err, &refusal):
		if refusal.Code != "28000" || refusal.Severity != "FATAL" || !strings.Contains(refusal.Hint, "armorctl explain") {
			t.Errorf("the client was told %s %s: %s", refusal.Severity, refusal.Code, refusal.Message)
		}
	case err == nil:
		t.Error("the session ended well")
	case !unreadable && !isBrokenOff(err):
		t.Errorf("the session ended with %v", err)
	}
}

// isBrokenOff reports whether an error is what a client sees of a connection that was
// reset, or that its driver has closed for that reason.
func isBrokenOff(err error) bool {
	for _, word := range []string{"reset", "broken pipe", "unexpected EOF", "closed network connection"} {
		if strings.Contains(err.Error(), word) {
			return true
		}
	}
	return false
}

func TestGrantRemovedEndsItsSessionsTheSameWay(t *testing.T) {
	a := acceptance(t)
	config := func(roles string) string {
		file := filepath.Join(t.TempDir(), "passing.yaml")
		text := fmt.Sprintf("apiVersion: armor/v1\nkind: Identity\nmetadata: {name: passing, environment: dev}\nspec:\n  id: %s-passing\n  owner: acceptance\n  grants: %s\n", demoIdentity, roles)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	a.ctl(t, "apply", "-f", config("[{database: app, roles: [app], pool: app}]"))
	dir := filepath.Join(t.TempDir(), "certificate")
	a.ctl(t, "cert", "issue", "passing", "--environment", "dev", "--ca", a.clientCA(), "--owner", "acceptance", "--out", dir)
	for _, place := range []bool{true, false} {
		n := a.nodeThat(t, place)
		eventually(t, n.Name+" knows the grant", func() bool { return a.loaded(t, dir).Ping(t.Context(), n) == nil })
		d := a.session(t, dir, n, "grant"+n.Name)
		states["in a query"](t, a, d)
		a.revokedWith(t, d, n, func() []byte { a.ctl(t, "apply", "-f", config("[]")); return nil }, false)
		a.ctl(t, "apply", "-f", config("[{database: app, roles: [app], pool: app}]"))
	}
}

func TestRevocationOutlivesTheLeaderAndARestartOfAll(t *testing.T) {
	a := acceptance(t)
	first, second := a.fresh(t), a.fresh(t)
	a.ctl(t, "revoke", "--file", filepath.Join(first, "client.crt"), "--reason", "superseded", "--yes")
	leader := a.nodeThat(t, true)
	a.kill(t, leader)
	a.ctl(t, "revoke", "--file", filepath.Join(second, "client.crt"), "--reason", "superseded", "--yes", "--timeout", "60s")
	// The node that was down refuses from its first accept on.
	if err := a.Start(leader); err != nil {
		t.Fatal(err)
	}
	a.neverServed(t, a.loaded(t, second), leader)
	for _, n := range a.Nodes {
		a.kill(t, n)
	}
	for _, n := range a.Nodes {
		if err := a.Start(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range a.Nodes {
		for _, dir := range []string{first, second} {
			a.neverServed(t, a.loaded(t, dir), n)
		}
	}
}

// neverServed knocks until the node has answered that the certificate is revoked; no
// answer before may be another than that it is not ready.
func (a *arena) neverServed(t *testing.T, app site.Client, n *site.Node) {
	t.Helper()
	eventually(t, n.Name+" says that it is revoked", func() bool {
		err := app.Ping(t.Context(), n)
		refusal := (*pgconn.PgError)(nil)
		if err == nil {
			t.Fatalf("%s served a revoked certificate", n.Name)
		}
		if !errors.As(err, &refusal) {
			return false // not listening yet
		}
		if refusal.Code != "57P03" && refusal.Code != "28000" {
			t.Errorf("%s said %s: %s", n.Name, refusal.Code, refusal.Message)
		}
		return refusal.Code == "28000"
	})
}
