package pooler_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

var revoked = &armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked", Hint: "ask"}

// TestCutEndsTheSessionInEveryState: whatever a session is doing, the cut is
// confirmed, the client reads the FATAL or sees a reset, and no server connection is
// lost.
func TestCutEndsTheSessionInEveryState(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(h *house, c *pgtest.Client)
		fatal bool // the client must be able to read why
	}{
		{"idle", func(*house, *pgtest.Client) {}, true},
		{"in a transaction", func(h *house, c *pgtest.Client) { h.query(c, "BEGIN") }, true},
		{"query runs", func(h *house, c *pgtest.Client) { h.startSleeping(c) }, true},
		{"copy in", func(h *house, c *pgtest.Client) {
			h.query(c, "BEGIN")
			h.query(c, "CREATE TEMP TABLE t (s text)")
			h.must(c.Send(pgtest.Encode('Q', "COPY t FROM STDIN")))
			_, err := c.Until('G')
			h.must(err)
			h.must(c.Send(pgtest.Encode('d', []byte("abc\n"))))
		}, true},
		{"half a message sent", func(h *house, c *pgtest.Client) {
			_, err := c.Write(pgtest.Encode('Q', "SELECT 1")[:7])
			h.must(err)
		}, true},
		{"client does not read", func(h *house, c *pgtest.Client) {
			h.must(c.Send(pgtest.Encode('Q', "SELECT repeat('x', 10000), generate_series(1, 1000000000)")))
			observer := h.observer()
			h.await("PostgreSQL cannot write", func() bool {
				return h.query(observer, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND usename LIKE 'orders%'")[0] != "0"
			})
		}, false},
		{"PostgreSQL does not read", func(h *house, c *pgtest.Client) {
			h.startSleeping(c)
			conn := c.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
			go func() { _, _ = io.Copy(c.Conn, endless{pgtest.Encode('Q', strings.Repeat(" ", 20000))}) }() // until the connection ends
			h.await("the client cannot write", func() bool { return !writable(conn) })
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode armor.PoolMode) {
				h := newHouse(t, inMode(mode), withBudget(1), withTLSClients(t))
				client := h.client()
				g := h.last()
				c.begin(h, client)
				g.cut(revoked)
				h.awaitClosed("the cut is confirmed", g.confirmed)
				refusal := lastWord(client)
				switch {
				case refusal != nil:
					h.wantRefusal(refusal, "FATAL", "28000")
				case c.fatal:
					t.Error("the client was not told why")
				}
				h.awaitClosed("ServeConn returns", g.ended)
				if got := h.query(h.client(), "SELECT 1"); got[0] != "1" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// endless reads the same bytes again and again, whole each time.
type endless struct{ b []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p, e.b), nil }

// writable reports whether the socket takes a byte more. Nothing is written.
func writable(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ready := false
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
		ready = err == nil && n > 0
	})
	return ready
}

// lastWord reads to the end and returns the last message if it is an error.
func lastWord(c *pgtest.Client) error {
	var last pgtest.Message
	for {
		m, err := c.Receive()
		if err != nil {
			break
		}
		last = m
	}
	if last.Type != 'E' {
		return nil
	}
	return &pgtest.Refusal{Fields: last.Fields()}
}

func TestCutWhileWaiting(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a, b := h.client(), h.client()
	h.query(a, "BEGIN")
	h.must(b.Send(pgtest.Encode('Q', "SELECT 1")))
	h.await("it waits", func() bool { return h.status().Waiting == 1 })
	g := h.last()
	g.cut(revoked)
	h.awaitClosed("the cut is confirmed", g.confirmed)
	h.wantRefusal(lastWord(b), "FATAL", "28000")
	if n := h.status().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestCutWhileLoggingIn(t *testing.T) {
	h := newHouse(t, inMode(armor.SessionMode), withBudget(1))
	h.client()
	b := h.dial()
	h.must(b.Send(pgtest.Startup("user", pgtest.Role, "database", "orders")))
	h.await("it waits", func() bool { return h.status().Waiting == 1 })
	g := h.last()
	g.cut(revoked)
	h.wantRefusal(lastWord(b), "FATAL", "28000")
	h.awaitClosed("ServeConn returns", g.ended)
}

func TestCutBeforeTheStartupPacket(t *testing.T) {
	h := newHouse(t)
	c := h.dial()
	h.await("it is there", func() bool { return len(h.all()) == 1 })
	h.last().cut(revoked)
	h.must(c.Send(pgtest.Startup("user", pgtest.Role, "database", "orders")))
	h.wantRefusal(lastWord(c), "FATAL", "28000")
}

// TestLiveIsAskedBeforeEveryForward: a node that finds itself stale in the middle of a
// session forwards nothing more, though nobody has cut the session.
func TestLiveIsAskedBeforeEveryForward(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client()
		h.query(c, "CREATE TABLE IF NOT EXISTS forwarded (n int)")
		h.last().stale.Store(true)
		h.must(c.Send(pgtest.Encode('Q', "INSERT INTO forwarded VALUES (1)")))
		h.wantRefusal(lastWord(c), "FATAL", "57P03")
		h.awaitClosed("ServeConn returns", h.last().ended)
		if got := h.query(h.client(), "SELECT count(*) FROM forwarded"); got[0] != "0" {
			t.Error("the statement reached PostgreSQL")
		}
	})
}

func TestClientGoneWhileWaitingLeavesTheQueue(t *testing.T) {
	h := newHouse(t, withBudget(1))
	a, b := h.client(), h.client()
	h.query(a, "BEGIN")
	h.must(b.Send(pgtest.Encode('Q', "SELECT 1")))
	h.await("it waits", func() bool { return h.status().Waiting == 1 })
	b.Close()
	h.awaitClosed("the session ends", h.last().ended)
	if n := h.status().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestDrainEndsSessionsBetweenTransactions(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		idle, busy := h.client(), h.client()
		h.query(busy, "BEGIN")
		drained := make(chan error, 1)
		go func() { drained <- h.Drain(context.Background()) }()
		h.wantRefusal(lastWord(idle), "FATAL", "57P01")
		late := h.client() // it was in its handshake
		if got := h.query(late, "SELECT 7"); got[0] != "7" {
			t.Errorf("the first query of a client that came late: %q", got)
		}
		h.wantRefusal(lastWord(late), "FATAL", "57P01")
		h.query(busy, "SELECT 1")
		select {
		case err := <-drained:
			t.Fatalf("drained with a transaction open: %v", err)
		default:
		}
		h.query(busy, "COMMIT")
		h.wantRefusal(lastWord(busy), "FATAL", "57P01")
		h.must(<-drained)
	})
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	h := newHouse(t)
	h.query(h.client(), "BEGIN")
	ctx, stop := context.WithCancelCause(context.Background())
	cause := errors.New("out of patience")
	stop(cause)
	if err := h.Drain(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}
