package pooler_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// prepare has a client prepare a statement and be told what it is.
func (h *house) prepare(c *pgtest.Client, name, sql string) {
	h.t.Helper()
	h.must(c.Send(pgtest.Encode('P', name, sql, int16(0)), pgtest.Encode('D', "S"+name), pgtest.Encode('S')))
	_, err := c.Answer()
	h.must(err)
}

// bound binds and runs a statement.
func bound(c *pgtest.Client, name string) ([]string, error) {
	if err := c.Send(pgtest.Encode('B', "", name, int16(0), int16(0), int16(0)), pgtest.Encode('E', "", 0), pgtest.Encode('S')); err != nil {
		return nil, err
	}
	return c.Answer()
}

func (h *house) wantBound(c *pgtest.Client, name, want string) {
	h.t.Helper()
	if got, err := bound(c, name); err != nil || len(got) != 1 || got[0] != want {
		h.t.Errorf("%s: %v, %v, want %s", name, got, err, want)
	}
}

// TestWhatParseReadsBelongsToTheStatement: the same text means something else to another
// client.
func TestWhatParseReadsBelongsToTheStatement(t *testing.T) {
	const text = "SELECT to_char('2024-03-01 00:00'::timestamptz AT TIME ZONE 'UTC', 'DD HH24') || extract(day from '02/03/2024'::date)"
	h := newHouse(t, withBudget(1))
	dmy := h.client("timezone", "Asia/Tokyo", "datestyle", "ISO, DMY")
	mdy := h.client("timezone", "UTC", "datestyle", "ISO, MDY")
	h.prepare(dmy, "s", text)
	h.prepare(mdy, "s", text)
	h.wantBound(dmy, "s", "29 152")
	h.wantBound(mdy, "s", "01 003")
	h.wantBound(dmy, "s", "29 152")
}

// TestANewClientNeverReadsOfAnOldPlan: what it prepares is what the table is now.
func TestANewClientNeverReadsOfAnOldPlan(t *testing.T) {
	h := newHouse(t, withBudget(2))
	h.query(h.client(), "CREATE TABLE fresh (a int, b text); INSERT INTO fresh VALUES (1, 'x')")
	old := h.client()
	h.prepare(old, "s", "SELECT * FROM fresh")
	h.wantBound(old, "s", "1")
	h.query(h.client(), "ALTER TABLE fresh DROP COLUMN a; ALTER TABLE fresh ADD COLUMN a text DEFAULT 'y'")
	for range 3 {
		c := h.client()
		h.prepare(c, "s", "SELECT * FROM fresh")
		h.wantBound(c, "s", "x")
	}
}

// TestAResultIsDecodedAsItWasDescribed: an old client is told that its statement gives another
// result than it was told, wherever it comes to, until it has prepared anew.
func TestAResultIsDecodedAsItWasDescribed(t *testing.T) {
	h := newHouse(t, withBudget(2))
	h.query(h.client(), "CREATE TABLE swapped (a int, b int); INSERT INTO swapped VALUES (1, 2)")
	c, holder := h.client(), h.client()
	h.prepare(c, "s", "SELECT * FROM swapped")
	h.wantBound(c, "s", "1")
	h.query(h.client(), "ALTER TABLE swapped DROP COLUMN a; ALTER TABLE swapped ADD COLUMN a int DEFAULT 1")
	refused := func(where string) {
		t.Helper()
		_, err := bound(c, "s")
		if f := h.wantRefusal(err, "ERROR", "0A000"); f['R'] != "RevalidateCachedQuery" {
			t.Errorf("%s: %q", where, f)
		}
	}
	refused("on the connection that has the statement")
	h.prepare(h.client(), "t", "SELECT * FROM swapped") // by a new client, on the same connection
	refused("where another has prepared it anew")
	h.query(holder, "BEGIN")
	refused("on another connection")
	h.query(holder, "COMMIT")
	h.must(c.Send(pgtest.Encode('C', "Ss"), pgtest.Encode('S')))
	_, err := c.Answer()
	h.must(err)
	h.prepare(c, "s", "SELECT * FROM swapped")
	h.wantBound(c, "s", "2")
}

// TestAStatementThatIsGoneIsPreparedAgain: whoever has dropped it, the client is told at most
// once.
func TestAStatementThatIsGoneIsPreparedAgain(t *testing.T) {
	h := newHouse(t, withBudget(1))
	c, other := h.client(), h.client()
	h.prepare(c, "s", "SELECT 5")
	h.query(other, "DO $$ BEGIN EXECUTE 'DEALL' || 'OCATE ALL'; END $$")
	if _, err := bound(c, "s"); err != nil {
		h.wantRefusal(err, "ERROR", "26000")
	}
	h.wantBound(c, "s", "5")
}

// TestATypeThatIsMadeAnewIsFoundAgain: nobody needs PostgreSQL's words for that, which may be in
// any language.
func TestATypeThatIsMadeAnewIsFoundAgain(t *testing.T) {
	h := newHouse(t, withBudget(1))
	h.query(h.client(), "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE moods (m mood)")
	old := h.client()
	insert := "INSERT INTO moods VALUES ('a')"
	h.prepare(old, "s", insert)
	if _, err := bound(old, "s"); err != nil {
		t.Fatal(err)
	}
	h.query(h.client(), "DROP TABLE moods; DROP TYPE mood; CREATE TYPE mood AS ENUM ('a'); CREATE TABLE moods (m mood)")
	for range 3 {
		c := h.client()
		h.prepare(c, "s", insert)
		if _, err := bound(c, "s"); err != nil {
			t.Error(err)
		}
	}
	failed := 0
	for range 5 {
		if _, err := bound(old, "s"); err != nil {
			if _, told := errors.AsType[*pgtest.Refusal](err); !told {
				t.Fatal(err)
			}
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d of 5 failed for a client that was there before", failed)
	}
}

// TestStatementNamesAreNobodysToGuess: what a client can see of its own connection does not tell
// it what statements are called on another.
func TestStatementNamesAreNobodysToGuess(t *testing.T) {
	h := newHouse(t, withBudget(2))
	c, holder := h.client(), h.client()
	const mine = "SELECT string_agg(name, ' ') FROM pg_prepared_statements WHERE statement = 'SELECT 41'"
	h.prepare(c, "s", "SELECT 41")
	first := h.query(c, mine)[0]
	h.query(c, "BEGIN")
	h.query(holder, "SELECT 1")
	h.query(c, "COMMIT")
	h.query(holder, "BEGIN")
	h.prepare(holder, "s", "SELECT 41")
	h.query(c, "BEGIN")
	h.wantBound(c, "s", "41")
	if second, third := h.query(c, mine)[0], h.query(holder, mine)[0]; second == third || first == "" || second == "" || third == "" {
		t.Errorf("names: %q, %q, %q", first, second, third)
	}
	if _, err := bound(c, armor.ErrInvalid.Error()); err == nil {
		t.Error("a name that nobody has given was bound")
	}
}

// TestDeallocateKnowsStatementsOfTheProtocol in every spelling, and by the extended protocol, as
// psycopg 3 sends it; here and on another connection.
func TestDeallocateKnowsStatementsOfTheProtocol(t *testing.T) {
	h := newHouse(t, withBudget(2))
	c, holder := h.client(), h.client()
	extended := func(sql string) error {
		h.must(c.Send(pgtest.Encode('P', "", sql, int16(0)), pgtest.Encode('B', "", "", int16(0), int16(0), int16(0)),
			pgtest.Encode('E', "", 0), pgtest.Encode('S')))
		_, err := c.Answer()
		return err
	}
	simple := func(sql string) error {
		_, err := c.Query(sql)
		return err
	}
	for name, spelling := range map[string]string{
		"st1": "DEALLOCATE st1", "st2": "/* app */ Deallocate Prepare ST2;", `we"ird`: `deallocate "we""ird" -- end`,
		"prepare": "DEALLOCATE prepare",
	} {
		for how, send := range map[string]func(string) error{"simple": simple, "extended": extended} {
			for _, elsewhere := range []bool{false, true} {
				h.prepare(c, name, "SELECT 3")
				if elsewhere {
					h.query(holder, "BEGIN")
				}
				if err := send(spelling); err != nil {
					t.Errorf("%s, %s, elsewhere %t: %v", spelling, how, elsewhere, err)
				}
				if elsewhere {
					h.query(holder, "COMMIT")
				}
				_, err := bound(c, name)
				h.wantRefusal(err, "ERROR", "26000")
			}
		}
	}
	h.prepare(c, "kept", "SELECT 4")
	h.query(c, "BEGIN")
	_, err := c.Query("SELECT 1/0")
	h.wantRefusal(err, "ERROR", "22012")
	h.wantRefusal(extended("DEALLOCATE kept"), "ERROR", "25P02")
	h.query(c, "ROLLBACK")
	h.wantBound(c, "kept", "4")
}

// TestAServerConnectionKeepsSomeStatements: as many as its pool says, also when that has changed
// since it was opened; whatever is not kept is prepared again.
func TestAServerConnectionKeepsSomeStatements(t *testing.T) {
	h := newHouse(t, withBudget(1), withPool(func(p *armor.Pool) { p.MaxPreparedStatements = 2 }))
	c, other := h.client(), h.client()
	names := []string{"1", "2", "3", "4", "5"}
	for _, name := range names {
		h.prepare(c, name, "SELECT 6 + "+name)
	}
	results := map[string]string{"1": "7", "2": "8", "3": "9", "4": "10", "5": "11"}
	for _, kept := range []int{2, 4, 1, 0} {
		h.pool.MaxPreparedStatements = kept
		h.configure()
		for range 2 {
			for _, name := range names {
				h.wantBound(c, name, results[name])
			}
		}
		if kept == 0 {
			kept = len(names) // the default is more
		}
		h.want(other, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'armor\\_%'", strconv.Itoa(kept))
	}
	h.pool.MaxPreparedStatements = 3
	h.configure()
	h.wantBound(c, "5", "11") // needs none of the others to be prepared
	h.want(other, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'armor\\_%'", "3")
}

// TestPortalsOutliveTheStatementsThatAreNotKept: a client may have several open.
func TestPortalsOutliveTheStatementsThatAreNotKept(t *testing.T) {
	h := newHouse(t, withBudget(1), withPool(func(p *armor.Pool) { p.MaxPreparedStatements = 1 }))
	c := h.client()
	for _, name := range []string{"1", "2", "3"} {
		h.prepare(c, name, "SELECT "+name)
	}
	var all [][]byte
	for _, name := range []string{"1", "2", "3"} {
		all = append(all, pgtest.Encode('B', "p"+name, name, int16(0), int16(0), int16(0)))
	}
	for _, name := range []string{"1", "2", "3"} {
		all = append(all, pgtest.Encode('E', "p"+name, 0))
	}
	h.must(c.Send(append(all, pgtest.Encode('S'))...))
	got, err := c.Answer()
	h.must(err)
	if strings.Join(got, " ") != "1 2 3" {
		t.Errorf("got %v", got)
	}
}
