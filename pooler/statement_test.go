package pooler_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestStatementModeRefusesTransactionBlocks: the session ends, what was begun is rolled
// back, and everything else is served.
func TestStatementModeRefusesTransactionBlocks(t *testing.T) {
	h := newHouse(t, inMode(armor.StatementMode), withBudget(1))
	c := h.client()
	h.query(c, "CREATE TABLE blocks (n int)")
	defer func() { h.query(h.client(), "DROP TABLE blocks") }()
	other := h.client()
	for range 2 { // of one server connection
		h.query(c, "INSERT INTO blocks VALUES (1)")
		h.query(other, "INSERT INTO blocks VALUES (1); INSERT INTO blocks VALUES (1)")
	}
	h.must(c.Send(pgtest.Encode('P', "s", "INSERT INTO blocks VALUES (1)", int16(0)),
		pgtest.Encode('B', "", "s", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
	_, err := c.Until('Z')
	h.must(err)
	g := h.all()[0]
	h.must(c.Send(pgtest.Encode('Q', "BEGIN; INSERT INTO blocks VALUES (2)"), pgtest.Encode('Q', "COMMIT")))
	fields := h.wantRefusal(lastWord(c), "FATAL", "0A000")
	if want := "transaction blocks not allowed in statement pooling mode"; fields['M'] != want {
		t.Errorf("got %q, want %q", fields['M'], want)
	}
	h.awaitClosed("the session ends", g.ended)
	if got := h.query(other, "SELECT count(*), max(n) FROM blocks"); got[0] != "7" {
		t.Errorf("%s rows, want 7: the block was committed, or a statement was lost", got[0])
	}
}

// TestLongPipelineIsReadToItsEnd: in statement mode each query waits for the answer to the
// one before it, while the rest lies in the socket.
func TestLongPipelineIsReadToItsEnd(t *testing.T) {
	h := newHouse(t, inMode(armor.StatementMode))
	c := h.client()
	const queries = 100
	sent := make(chan error, 1)
	go func() {
		var all []byte
		for i := range queries {
			all = append(all, pgtest.Encode('Q', fmt.Sprintf("SELECT %d /* %s */", i, strings.Repeat("x", 20_000)))...)
		}
		sent <- c.Send(all)
	}()
	for i := range queries {
		if got, err := c.Answer(); err != nil || got[0] != fmt.Sprint(i) {
			t.Fatalf("query %d: %q, %v", i, got, err)
		}
	}
	h.must(<-sent)
}
