package pooler_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/armordb/armordb/armor"
)

// generator makes programs. What it makes follows from its seed alone.
type generator struct {
	*rand.Rand
	// kept: session state is, as in session mode. Else what docs/pooling.md lists as
	// different in transaction mode is left out.
	kept bool
	// state: session state is kept in transaction mode.
	state bool
	who   string // ends the names of tables and channels, so that clients don't meet
	marks int
	// preset: the startup packet has settings, to which RESET does not lead back.
	preset bool
	params map[string]string // of the statements by name: the kinds of their parameters
}

func newGenerator(seed uint64, p armor.Pool, who string) *generator {
	return &generator{
		Rand: rand.New(rand.NewPCG(seed, 0)), kept: p.Mode == armor.SessionMode, state: p.OnState == armor.KeepState, who: who,
		params: map[string]string{},
	}
}

func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, all ...T) T { return all[g.IntN(len(all))] }

// program makes one of up to 12 blocks.
func (g *generator) program() program {
	p := program{split: g.Uint64()}
	if g.oneIn(3) {
		p.startup, g.preset = g.settings(), true
	}
	for range 2 + g.IntN(11) {
		p.blocks = append(p.blocks, g.block())
	}
	p.blocks = append(p.blocks, block{query("ROLLBACK").fixed(), g.mark()})
	return p
}

func (g *generator) settings() []string {
	return pick(g,
		[]string{"application_name", "differ"},
		[]string{"TimeZone", "Asia/Tokyo", "datestyle", "German"},
		[]string{"options", "-c statement_timeout=61s -c search_path=public,pg_catalog"},
		[]string{"application_name", "wé", "options", "--work-mem=5MB -c intervalstyle=iso_8601"},
	)
}

func (g *generator) mark() step {
	g.marks++
	return mark(g.marks)
}

func (g *generator) block() block {
	var b block
	switch g.IntN(20) {
	case 0, 1, 2, 3, 4:
		b = block{query(g.simple())}
	case 5:
		b = block{query(g.simple()), query(g.simple()), query(g.simple())}
	case 6, 7, 8, 9, 10:
		b = append(g.cycle(), syncCycle())
	case 11:
		b = append(append(append(g.cycle(), syncCycle()), append(g.cycle(), syncCycle())...), query(g.simple()))
	case 12, 13:
		b = g.interactive()
	case 14:
		b = g.copyIn()
	case 15:
		b = g.copyInExtended()
	case 16:
		b = g.cancelled()
	case 17:
		b = block{g.function()}
	default:
		b = g.wild()
	}
	if b = g.renew(b); b[len(b)-1].await != nothing {
		return b
	}
	if g.oneIn(2) {
		b[len(b)-1].await = untilReady
	}
	return b
}

// renew prepares the unnamed statement anew where PostgreSQL may have skipped what would
// have replaced it: in transaction mode there is none then.
func (g *generator) renew(b block) block {
	if g.kept {
		return b
	}
	var all block
	first, risky := true, false
	for _, s := range b {
		all = append(all, s)
		unnamed := strings.HasPrefix(s.text, `parse ""`) || s.text == `close S ""` || strings.HasPrefix(s.text, "query")
		risky = risky || unnamed && !first
		first = s.text == "sync"
		if first && risky {
			all = append(all, parse("", "SELECT 5").fixed(), syncCycle())
			g.params[""], risky = "", false
		}
	}
	return all
}

// table is the client's own; row is a value that may or may not be new there.
func (g *generator) table() string { return "differ_" + g.who }

func (g *generator) row() string {
	return fmt.Sprintf("(%d, '%s')", g.IntN(30), pick(g, "a", "bé", "it''s", ""))
}

// simple is the text of a simple query.
func (g *generator) simple() string {
	switch g.IntN(12) {
	case 0:
		return pick(g, "", " ", ";", "-- nothing", ";;")
	case 1, 2:
		return g.transaction()
	case 3:
		return g.statement() + "; " + g.statement() + ";" + g.statement()
	case 4:
		return g.transaction() + "; " + g.statement() + "; " + g.transaction()
	case 5:
		return g.session()
	case 6:
		return g.large()
	case 7:
		if g.state {
			return g.session()
		}
	}
	return g.statement()
}

func (g *generator) transaction() string {
	if g.oneIn(8) {
		return pick(g, "BEGIN ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
	}
	return g.plainTransaction()
}

// plainTransaction does not depend on whether a snapshot has been taken.
func (g *generator) plainTransaction() string {
	return pick(g, "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a",
		"START TRANSACTION READ ONLY", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "END", "ABORT")
}

// statement is one without parameters that leaves no session state.
func (g *generator) statement() string {
	t := g.table()
	return pick(g,
		"SELECT 1", "SELECT 1 AS one, NULL AS nothing, 'text' AS words", "SELECT generate_series(1, 3)", "SELECT", "VALUES (1, 'x'), (2, 'y')",
		"SELECT 1/0", "SELECT nonsense", "SELEC 1", "SELECT * FROM nowhere", "SELECT 'x'::int", "SELECT '\\x00ff'::bytea",
		"INSERT INTO "+t+" VALUES "+g.row(), "INSERT INTO "+t+" VALUES "+g.row()+" RETURNING *", "INSERT INTO "+t+" VALUES "+g.row()+", "+g.row(),
		"SELECT * FROM "+t+" ORDER BY id", "UPDATE "+t+" SET v = v || '!' WHERE id < 9", "DELETE FROM "+t+" WHERE id > 20", "DELETE FROM "+t,
		"SELECT count(*), sum(id) FROM "+t, "COPY "+t+" TO STDOUT",
		"COPY (SELECT generate_series(1, 200)) TO STDOUT (FORMAT binary)", "COPY nowhere TO STDOUT",
		"DO $$ BEGIN RAISE NOTICE 'told'; RAISE WARNING 'warned'; END $$",
		"DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = 'P0042', HINT = 'none'; END $$",
		"SHOW TimeZone", "SHOW datestyle", "SELECT current_setting('application_name')",
		"SELECT timestamptz '2001-02-03 04:05:06+00', interval '1 day 2 hours'",
		"SET LOCAL TimeZone = 'America/Lima'", "SET LOCAL work_mem = '3MB'", "SELECT pg_notify('nobody', 'x')", "NOTIFY nobody",
		"DECLARE c CURSOR FOR SELECT generate_series(1, 9)", "FETCH 2 FROM c", "MOVE 1 FROM c", "CLOSE c", "LOCK TABLE "+t+" IN SHARE MODE",
		"SELECT pg_advisory_xact_lock(hashtext('"+g.who+"'))", "CREATE TABLE made_"+g.who+" (a int PRIMARY KEY, b text)",
		"SELECT * FROM made_"+g.who, "DROP TABLE made_"+g.who,
		"EXPLAIN (COSTS off) SELECT 1", "SELECT 1; SELECT 2", "TRUNCATE "+t, "SELECT set_config('TimeZone', 'UTC', true)",
	)
}

// session is a command that sets, or may leave, something of the session.
func (g *generator) session() string {
	tracked := pick(g, "SET TimeZone = 'Europe/Berlin'", "SET datestyle = 'SQL, DMY'",
		"SET application_name = 'me'", "SET intervalstyle = 'iso_8601'",
		"SET client_encoding = 'LATIN1'", "SET client_encoding = 'UTF8'", "SET NAMES 'UTF8'",
		"SET standard_conforming_strings = on", "SET datestyle = 'nonsense'", "SET TIME ZONE 'UTC'")
	if g.state {
		return g.stateThatIsKept(tracked)
	}
	if !g.kept {
		if !g.preset && g.oneIn(4) {
			return pick(g, "RESET ALL", "RESET TimeZone", "DISCARD ALL")
		}
		return pick(g, tracked, "BEGIN; CREATE TEMP TABLE gone (a int) ON COMMIT DROP; INSERT INTO gone VALUES (1); COMMIT",
			"PREPARE q AS SELECT 7; EXECUTE q; DEALLOCATE q", "SET LOCAL statement_timeout = '50s'")
	}
	if g.preset {
		return tracked
	}
	return pick(g, tracked, "RESET ALL", "RESET TimeZone", "DISCARD ALL",
		"DISCARD PLANS", "DISCARD TEMP", "DEALLOCATE ALL", "DEALLOCATE s1", "DEALLOCATE q",
		"PREPARE q AS SELECT 7", "EXECUTE q", "PREPARE s2 AS SELECT 8", "EXECUTE s1", "SET work_mem = '6MB'", "SHOW work_mem",
		"CREATE TEMP TABLE tmp (a int UNIQUE)", "INSERT INTO tmp VALUES (1)", "SELECT * FROM tmp", "DROP TABLE tmp",
		"LISTEN own_"+g.who, "NOTIFY own_"+g.who+", 'hello'", "UNLISTEN *",
		"DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 5)", "FETCH 2 FROM held",
		"SELECT name, statement FROM pg_prepared_statements ORDER BY name",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
		"LOAD 'plpgsql'", "SET ROLE nobody")
}

// large is a query, or an answer, that fills more than one buffer.
func (g *generator) large() string {
	return pick(g,
		fmt.Sprintf("SELECT repeat('x', %d)", 1+g.IntN(300_000)), fmt.Sprintf("SELECT generate_series(1, %d)", g.IntN(5000)),
		"SELECT length('"+strings.Repeat("y", g.IntN(150_000))+"')",
		fmt.Sprintf("COPY (SELECT repeat('z', 5000) FROM generate_series(1, %d)) TO STDOUT", g.IntN(60)),
		"DO $$ BEGIN RAISE EXCEPTION '%', repeat('long ', 30000); END $$", "DO $$ BEGIN RAISE NOTICE '%', repeat('long ', 30000); END $$",
	)
}

func (g *generator) statementName() string { return pick(g, "", "", "s1", "s2", "s3") }

func (g *generator) portal() string { return pick(g, "", "", "", "p1", "p2") }

// cycle is messages of the extended protocol without the Sync.
func (g *generator) cycle() block {
	var b block
	for range 1 + g.IntN(4) {
		switch g.IntN(8) {
		case 0, 1, 2:
			b = append(b, g.usual()...)
		case 3:
			b = append(b, g.parse())
		case 4, 5:
			name := g.statementName()
			portal := g.portal()
			b = append(b, g.bind(portal, name), execute(portal, 0))
		default:
			b = append(b, g.extended())
		}
	}
	return b
}

// usual is what drivers send.
func (g *generator) usual() block {
	p := g.parse()
	name, portal := g.named(p), g.portal()
	b := block{p}
	if g.oneIn(2) {
		b = append(b, describe('S', name))
	}
	b = append(b, g.bind(portal, name))
	if g.oneIn(2) {
		b = append(b, describe('P', portal))
	}
	for range g.IntN(3) {
		b = append(b, execute(portal, 1+g.IntN(2)))
	}
	return append(b, execute(portal, 0))
}

// named is the name in a Parse.
func (g *generator) named(p step) string {
	name, _, _ := strings.Cut(string(p.bytes[5:]), "\x00")
	return name
}

// parameterised are statements, and the kinds of their parameters: i for int4, t for text.
var parameterised = []struct{ sql, kinds string }{
	{"SELECT $1::int + 1", "i"}, {"SELECT $1::text || '.'", "t"}, {"SELECT generate_series(1, $1::int)", "i"}, {"SELECT 10 / $1::int", "i"},
	{"SELECT * FROM differ_%[1]s WHERE id > $1 ORDER BY id", "i"}, {"INSERT INTO differ_%[1]s VALUES ($1, $2)", "it"},
	{"INSERT INTO differ_%[1]s VALUES ($1, $2) RETURNING id, v", "it"}, {"UPDATE differ_%[1]s SET v = $2 WHERE id = $1", "it"},
	{"DELETE FROM differ_%[1]s WHERE id = $1", "i"}, {"SELECT $1, $2", "tt"}, {"SELECT $1::int, $1::text", "i"},
}

func (g *generator) parse() step {
	name := g.statementName()
	if g.oneIn(2) {
		s := pick(g, parameterised...)
		g.params[name] = s.kinds
		sql := s.sql
		if strings.Contains(sql, "%") {
			sql = fmt.Sprintf(sql, g.who)
		}
		if s.kinds == "i" && g.oneIn(3) {
			return parse(name, sql, 23)
		}
		return parse(name, sql)
	}
	g.params[name] = ""
	switch g.IntN(8) {
	case 0:
		return parse(name, "")
	case 1, 2:
		return parse(name, g.plainTransaction())
	case 3:
		if g.kept {
			return parse(name, pick(g, g.session(), g.large(), g.transaction()))
		}
		if sql := g.session(); g.state && !strings.Contains(sql, ";") {
			return parse(name, sql)
		}
	}
	sql := g.statement()
	if !g.kept && strings.Contains(sql, "made_") { // it may be prepared, and no longer there
		sql = "SELECT 6"
	}
	return parse(name, sql)
}

func (g *generator) bind(portal, name string) step {
	var values []value
	for _, kind := range g.params[name] {
		values = append(values, g.value(byte(kind)))
	}
	if g.oneIn(25) {
		values = append(values, value{bytes: []byte("1")})
	}
	return bind(portal, name, values, pick(g, nil, nil, []int16{0}, []int16{1}, []int16{1, 0}, []int16{0, 0, 0})...)
}

func (g *generator) value(kind byte) value {
	switch {
	case g.oneIn(10):
		return value{}
	case kind == 't':
		return value{bytes: []byte(pick(g, "", "a", "bé", "\xff", strings.Repeat("w", g.IntN(40_000)))), binary: g.oneIn(3)}
	case g.oneIn(3):
		return value{bytes: binary.BigEndian.AppendUint32(nil, uint32(g.IntN(30)))[g.IntN(30)/29:], binary: true}
	}
	return value{bytes: []byte(pick(g, "0", "1", "2", "7", "25", "-3", "nonsense", "99999999999"))}
}

// extended is any message of the extended protocol but Sync.
func (g *generator) extended() step {
	switch g.IntN(8) {
	case 0:
		return g.parse()
	case 1:
		return g.bind(g.portal(), pick(g, g.statementName(), "nosuch"))
	case 2:
		if !g.kept { // in a block that has failed there may be no statement to describe
			return describe('S', "nosuch")
		}
		return describe('S', pick(g, g.statementName(), "nosuch"))
	case 3:
		return describe('P', g.namedPortal())
	case 4:
		return closing('S', pick(g, g.statementName(), "nosuch"))
	case 5:
		return closing('P', g.namedPortal())
	case 6:
		return flush()
	}
	return execute(g.namedPortal(), g.IntN(3))
}

// namedPortal is not the unnamed one: PostgreSQL 15 crashes when it is told to execute
// that of a simple query which has failed in a block.
func (g *generator) namedPortal() string { return pick(g, "p1", "p2", "nosuch") }

// interactive is a cycle in which the client waits for what Flush brings.
func (g *generator) interactive() block {
	b := block{query(pick(g, "BEGIN", "SELECT 1", "SELECT 1/0")).waiting(untilReady).fixed()}
	for range 1 + g.IntN(3) {
		b = append(append(b, g.usual()...), flush().waiting(untilReply).fixed())
	}
	return append(b, syncCycle())
}

// rows are COPY data, which is not always what the table takes.
func (g *generator) rows() (data []step) {
	for range g.IntN(5) {
		data = append(data, copyData(pick(g, "", "1", fmt.Sprintf("%d\ta\n", g.IntN(60)), fmt.Sprintf("%d\tb\n%d\tc\n", g.IntN(60), g.IntN(60)),
			"nonsense\n", "7\t"+strings.Repeat("d", g.IntN(60_000))+"\n", "8\te\n\\.\n")))
	}
	return data
}

func (g *generator) copyEnd() step {
	if g.oneIn(4) {
		return copyFail("the client says no")
	}
	return copyDone()
}

// copySQL is a COPY from the client that mostly works.
func (g *generator) copySQL() string {
	return pick(g, "COPY "+g.table()+" FROM STDIN", "COPY "+g.table()+" FROM STDIN",
		"COPY "+g.table()+" (id) FROM STDIN", "COPY nowhere FROM STDIN", "COPY "+g.table()+" FROM STDIN (FORMAT csv)")
}

func (g *generator) copyIn() block {
	sql := g.copySQL()
	if g.oneIn(4) {
		sql = "SELECT 1; " + sql + "; SELECT 2"
	}
	b := block{query(sql).fixed()}
	if g.oneIn(2) {
		b = block{query("SELECT 2").waiting(untilReady).fixed(), b[0].waiting(untilReply)}
	}
	return append(append(b, g.rows()...), g.copyEnd())
}

func (g *generator) copyInExtended() block {
	b := block{query("SELECT 3").waiting(untilReady).fixed(),
		parse("", g.copySQL()).fixed(), bind("", "", nil).fixed(), execute("", 0).fixed()}
	switch g.IntN(3) {
	case 0:
		b = append(b, flush().waiting(untilReply).fixed())
	case 1: // the Sync that libpq sends at once: ignored if the COPY begins
		return append(append(append(b, syncCycle()), g.rows()...), g.copyEnd(), syncCycle(), g.mark())
	}
	return g.replaced(append(append(b, g.rows()...), g.copyEnd(), syncCycle()))
}

func (g *generator) cancelled() block {
	g.marks++
	sleep := fmt.Sprintf("SELECT pg_sleep(3600) /* %s %d %s */", g.who, g.marks, playNumber)
	settled := query(pick(g, "ROLLBACK", "ROLLBACK; BEGIN")).waiting(untilReady).fixed()
	if g.oneIn(2) {
		return block{settled, step{text: "query " + sleep, bytes: query(sleep).bytes, ready: true, stays: true, await: untilCancel, mark: sleep}}
	}
	last := syncCycle().waiting(untilCancel)
	last.mark = sleep
	return g.replaced(block{settled, parse("", sleep).fixed(), bind("", "", nil).fixed(), execute("", 0).fixed(), execute("", 0), last})
}

// replaced puts something harmless in the place of the unnamed statement: nobody expects
// a COPY or a sleep later.
func (g *generator) replaced(b block) block {
	g.params[""] = ""
	return append(b, parse("", "SELECT 7").fixed(), syncCycle())
}

// function is a call of int4pl, of a function that fails, or of none.
func (g *generator) function() step {
	return pick(g, call(177, "20", "22"), call(154, "1", "0"), call(177, "x", "1"), call(177, "1"), call(99_999))
}

// wild is messages in no sensible order.
func (g *generator) wild() block {
	var b block
	for range 1 + g.IntN(8) {
		switch g.IntN(10) {
		case 0:
			b = append(b, query(g.simple()))
		case 1:
			b = append(b, query(g.copySQL()))
			if !g.kept {
				b = append(append(b, g.rows()...), copyFail("at once"))
			}
		case 2:
			s := syncCycle()
			s.stays = false
			b = append(b, s)
		case 3:
			b = append(b, g.rows()...)
		case 4:
			s := g.copyEnd()
			s.stays = false
			b = append(b, s)
		case 5:
			b = append(b, parse("", g.copySQL()), bind("", "", nil), execute("", 0))
			if !g.kept { // in the middle of a COPY other messages than PostgreSQL's may be refused
				b = append(append(b, g.rows()...), copyFail("at once"), syncCycle())
			}
		case 6:
			b = append(b, g.function())
		default:
			b = append(b, g.extended())
		}
	}
	for i := range b {
		b[i].ready, b[i].replies = false, false // nobody can tell
	}
	// A portal of a COPY must not be left: nobody expects one later.
	return append(b, copyFail("enough"), syncCycle(), closing('P', "p1").fixed(), closing('P', "p2").fixed(), syncCycle(), g.mark())
}
