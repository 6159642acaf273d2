package pooler_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

func TestShutdownIsRefusedWhileOtherEnvironmentsAreServed(t *testing.T) {
	called := make(chan struct{}, 1)
	h := newHouse(t, withShutdown(func() { called <- struct{}{} }))
	foreign, database := h.pool, h.database
	foreign.Environment, database.Environment = "staging", "staging"
	h.Configure([]armor.Database{h.database, database}, []armor.Pool{h.pool, foreign})
	_, err := ask(h.console("admin"), "SHUTDOWN WAIT_FOR_SERVERS")
	h.wantText(err, "42501", "SHUTDOWN would end clients of other environments")
	if len(called) > 0 {
		t.Error("it was begun all the same")
	}
}

func withShutdown(f func()) option {
	return func(_ *house, c *pooler.Config) { c.Console.Shutdown = f }
}

func TestShutdownWaitsForClients(t *testing.T) {
	called := make(chan struct{}, 1)
	h := newHouse(t, withShutdown(func() { called <- struct{}{} }))
	client := h.client()
	admin := h.console("admin")
	h.show(admin, "SHUTDOWN WAIT_FOR_CLIENTS")
	err := h.dial().Login("user", pgtest.Role, "database", "orders")
	h.wantRefusal(err, "FATAL", "57P01")
	h.query(client, "SELECT 1")
	if len(called) > 0 {
		t.Fatal("the node ends while a client is there")
	}
	h.must(client.Send(pgtest.Encode('X')))
	h.awaitClosed("the node ends", called)
}

func TestShutdownThatWaitsForClientsServesNewOnesUntilBalancersHaveSeenIt(t *testing.T) {
	announced := make(chan func(), 1)
	h := newHouse(t, withShutdown(func() {}), func(_ *house, c *pooler.Config) {
		c.Console.Announce = func(then func()) { announced <- then }
	})
	stays := h.client()
	h.show(h.console("admin"), "SHUTDOWN WAIT_FOR_CLIENTS")
	shut := <-announced
	h.query(h.client(), "SELECT 1")
	shut()
	h.wantRefusal(h.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P01")
	h.query(stays, "SELECT 1")
}

func TestShutdownAtOnceEndsEveryClient(t *testing.T) {
	called := make(chan struct{}, 1)
	hurried := false
	h := newHouse(t, withShutdown(func() { called <- struct{}{} }), func(_ *house, c *pooler.Config) {
		c.Console.Hurry = func() { hurried = true }
	})
	client := h.client()
	h.query(client, "BEGIN")
	h.show(h.console("admin"), "SHUTDOWN")
	messages, err := client.Until('E')
	h.must(err)
	if f := messages[0].Fields(); f['C'] != "57P01" || f['M'] != "this node is shutting down" {
		t.Errorf("got %v", f)
	}
	h.awaitClosed("the node ends", called)
	if !hurried {
		t.Error("the end waits for load balancers")
	}
}

func TestConsoleIsCutAndDrainedAsAnySession(t *testing.T) {
	h := newHouse(t)
	c := h.console("admin")
	h.show(c, "SHOW POOLS")
	g := h.last()
	g.cut(&armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked"})
	h.awaitClosed("the cut is confirmed", g.confirmed)
	h.wantRefusal(lastError(c), "FATAL", "28000")

	c = h.console("admin")
	h.last().stale.Store(true)
	h.must(c.Send(pgtest.Encode('Q', "SHOW POOLS")))
	h.wantRefusal(lastError(c), "FATAL", "57P03")

	c = h.console("admin")
	h.must(h.Drain(t.Context()))
	h.wantRefusal(lastError(c), "FATAL", "57P01")
}

// lastError reads an ErrorResponse and the end.
func lastError(c *pgtest.Client) error {
	messages, err := c.Until('E')
	if err != nil {
		return err
	}
	if _, err := c.Receive(); err != io.EOF {
		return fmt.Errorf("after the FATAL: %w", err)
	}
	return &pgtest.Refusal{Fields: messages[len(messages)-1].Fields()}
}

func TestConsoleBoundsWhatItReads(t *testing.T) {
	h := newHouse(t)
	for _, message := range [][]byte{
		pgtest.Encode('Q', strings.Repeat("x", 20_000)),
		pgtest.Encode('F', 1, int16(0), int16(0), int16(0)),
		pgtest.Encode('B', "", "", int16(0), int16(9)),
		pgtest.Encode('Q', []byte("no NUL")),
		{'~', 0, 0, 0, 4},
	} {
		c := h.console("stats")
		h.must(c.Send(message))
		messages, err := c.Until('E')
		h.must(err)
		if f := messages[0].Fields(); f['V'] != "FATAL" || f['C'] != "08P01" {
			t.Errorf("%.20q: got %v", message, f)
		}
	}
}
