package pooler_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgtest"
)

func openRegister(t *testing.T, path string) *backend.Register {
	t.Helper()
	r, err := backend.OpenRegister(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // what is written after the end is nobody's
	return r
}

// formerLife leaves so many server connections of the house's pool in PostgreSQL and in the
// register, as a node does that is killed while PostgreSQL keeps what it has.
func formerLife(t *testing.T, count int, register, host string) (left []*backend.Conn) {
	t.Helper()
	d, err := backend.New(backend.Config{
		Dial: backend.DefaultDialer.DialContext, Secrets: &secrets{passwords: []string{pgtest.Password}, hosts: []string{host}},
		Register:     openRegister(t, register),
		LoginTimeout: patience, ResetTimeout: patience, EndTimeout: patience, VanishedFor: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		c, _, err := d.Open(t.Context(), backend.Target{
			Pool: "production/orders", Role: pgtest.Role, Log: slog.New(slog.DiscardHandler),
			Database: armor.Database{Name: "orders", Environment: "production", DBName: pgtest.Database, TLSMode: armor.TLSDisable,
				Hosts: []string{host}, Roles: []armor.RoleAuth{{Role: pgtest.Role, Secret: "orders"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		left = append(left, c)
	}
	return left
}

func withRegister(t *testing.T, path string) option {
	return func(_ *house, c *pooler.Config) { c.Register = openRegister(t, path) }
}

func countingDials(n *atomic.Int64) option {
	return func(_ *house, c *pooler.Config) {
		dial := c.Dial
		if dial == nil {
			dial = backend.DefaultDialer.DialContext
		}
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			n.Add(1)
			return dial(ctx, network, address)
		}
	}
}

// TestWhatAKilledNodeHasLeftHoldsItsPlace in its next life, until PostgreSQL is seen to have it
// no more. That is looked for although all that the node may have is held back.
func TestWhatAKilledNodeHasLeftHoldsItsPlace(t *testing.T) {
	for name, host := range map[string]string{"socket": postgres.Socket(), "tcp": postgres.TCP()} {
		t.Run(name, func(t *testing.T) {
			register := filepath.Join(t.TempDir(), "connections")
			left := formerLife(t, 2, register, host)
			var dials atomic.Int64
			h := newHouse(t, withHost(host), withBudget(2), withRegister(t, register), countingDials(&dials))
			if s := h.status(); s.Withheld != 2 || s.Open != 2 || s.NotReady == "" || h.Held()[h.pool.Key()] != 2 {
				t.Fatalf("at once: %+v", s)
			}
			asked := make(chan error, 1)
			c := h.dial()
			go func() {
				asked <- errors.Join(c.Login("user", pgtest.Role, "database", "orders"), c.Send(pgtest.Encode('X')))
			}()
			observer := h.observer()
			h.await("twice were all asked to end and looked for", func() bool { return dials.Load() >= 6 || h.status().Withheld < 2 })
			if s := h.status(); s.Withheld != 2 || s.Idle != 0 {
				t.Errorf("while they live: %+v", s)
			}
			left[0].Close()
			h.await("one place is free", func() bool { return h.status().Withheld == 1 })
			h.must(<-asked) // a client that came meanwhile is served
			if n := h.backends(observer); n > 2 {
				t.Errorf("%d backends of 2", n)
			}
			left[1].Close()
			h.await("nothing is held back", func() bool { return h.status().Withheld == 0 })
			if s := h.status(); s.Open != 1 || s.NotReady != "" {
				t.Errorf("after it: %+v", s)
			}
		})
	}
}

// TestWhatAFormerLifeRunsIsCancelled: its client has gone with the node.
func TestWhatAFormerLifeRunsIsCancelled(t *testing.T) {
	register := filepath.Join(t.TempDir(), "connections")
	left := formerLife(t, 1, register, postgres.TCP())[0]
	if _, err := left.Stream().Write(pgtest.Encode('Q', "SET client_connection_check_interval = 0; SELECT pg_sleep(3600)")); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, withHost(postgres.TCP()), withBudget(2), withRegister(t, register))
	c := &pgtest.Client{Conn: left.Stream()}
	_, err := c.Answer()
	h.wantRefusal(err, "ERROR", "57014")
	if s := h.status(); s.Withheld != 1 {
		t.Errorf("a backend that lives: %+v", s)
	}
	left.Close()
	h.await("nothing is held back", func() bool { return h.status().Withheld == 0 })
}

// TestWhereNobodyCanLookPlacesComeBack, after PostgreSQL must have noticed the node's end; what
// had not logged in when the node was killed is waited for as long as PostgreSQL may wait.
func TestWhereNobodyCanLookPlacesComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	lines := `{"id":1,"pool":"production/orders","host":"/gone:5432","database":"orders","role":"orders_rw","pid":7}
{"id":2,"pool":"production/orders","host":"/gone:5432","database":"orders","role":"orders_rw"}
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	inBubble(t, &pgtest.Fake{}, func(b *bubble) {
		held := func() int { return b.Held()[b.pool.Key()] }
		time.Sleep(backend.FencedAfter - time.Second)
		if got := held(); got != 2 {
			t.Errorf("early: held %d", got)
		}
		time.Sleep(15 * time.Second)
		if got := held(); got != 1 {
			t.Errorf("when PostgreSQL must have noticed: held %d", got)
		}
		time.Sleep(time.Minute)
		if got := held(); got != 0 {
			t.Errorf("at last: held %d", got)
		}
	}, func(_ *house, c *pooler.Config) {
		c.Register = openRegister(t, path)
		c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }
	})
}

// TestAnEndWaitsForNoFormerLife, and leaves word of it to the next one.
func TestAnEndWaitsForNoFormerLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "connections")
	formerLife(t, 1, path, postgres.TCP())
	h := &house{t: t}
	t.Run("a life", func(t *testing.T) {
		h = newHouse(t, withHost(postgres.TCP()), withRegister(t, path))
		h.mayHold = 1
	})
	if left := openRegister(t, path).Former(); len(left) != 1 {
		t.Errorf("the next life finds %+v", left)
	}
}
