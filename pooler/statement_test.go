package pooler_test

import (
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
	h.must(c.Send(pgtest.Encode('P', "s", "INSERT INTO blocks VALUES (1)", int16(0)), pgtest.Encode('B', "", "s", int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')))
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
