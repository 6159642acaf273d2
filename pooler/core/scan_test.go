package core

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// bits name a mark for tables and failures.
var bits = []struct {
	mark marks
	name string
}{
	{harmlessSet, "harmlessSet"}, {begins, "begins"}, {commits, "commits"}, {forgets, "forgets"}, {sets, "sets"},
	{setsUntracked, "setsUntracked"}, {setsByCall, "setsByCall"}, {setsLocal, "setsLocal"}, {resets, "resets"}, {resetsAll, "resetsAll"},
	{mayChange, "mayChange"}, {runsCode, "runsCode"}, {makesTemp, "makesTemp"}, {listens, "listens"}, {locks, "locks"},
	{holds, "holds"}, {preparesSQL, "preparesSQL"}, {unmakes, "unmakes"}, {usesNumbers, "usesNumbers"}, {advances, "advances"},
}

func (m marks) String() string {
	var names []string
	for _, b := range bits {
		if m&b.mark != 0 {
			names = append(names, b.name)
		}
	}
	return strings.Join(names, "|")
}

// What several texts have in common.
const (
	unlike  = sets | setsUntracked              // SET of what is not tracked
	tracked = sets | harmlessSet                // SET of what is
	byCall  = sets | setsUntracked | setsByCall // set_config
	code    = mayChange | runsCode | advances   // of somebody's own
	changes = mayChange | advances
)

// told is what a text is expected to tell.
type told struct {
	text  string
	marks marks
	names string
}

func check(t *testing.T, table []told) {
	t.Helper()
	for _, want := range table {
		got := read([]byte(want.text))
		if got.marks != want.marks || strings.Join(got.names, " ") != want.names {
			t.Errorf("%q:\ngot  %v, names %q\nwant %v, names %q", want.text, got.marks, got.names, want.marks, want.names)
		}
	}
}

func TestOrdinaryQueriesTellNothing(t *testing.T) {
	for _, text := range []string{
		"", ";;", "select 1", "SELECT '", "SELECT $x$ SET", "-- SET x = 1", "/* listen x */ select 1", "/* /* */ ; listen x */",
		"SELECT temp, hold, temporary FROM weather", "SELECT \"set_config\", set_config FROM t", "UPDATE t SET x = 1 WHERE temp = 2",
		"CREATE TABLE weather (temp int, hold text)", "CREATE INDEX ON weather (temp)", "CREATE UNIQUE INDEX i ON weather USING gin (temp)",
		"CREATE TABLE IF NOT EXISTS a.b (id int PRIMARY KEY, n numeric(10,2), c varchar(3), FOREIGN KEY (n) REFERENCES o (id))",
		"select case when a = 1 then 2 end from t", "select 'commit; listen x; set x = 1'", `select "; SET x = 1"`, `SELECT E'\'; SET x = 1'`,
		"select $$ ; listen x $$, $a$ $$ ; listen x $a$", "select a$b$c from t where x in (1, 2) and y = any(array[1])",
		"select count(*), max(x), lower(y) from t group by 3 having sum(z) > 0 order by coalesce(a, b)",
		"select row_number() over (partition by a order by b), count(*) filter (where x) from t",
		"select extract(epoch from now()), substring(a from 1 for 2), position('a' in b), cast(x as numeric(10,2))",
		"select pg_catalog.lower(x), PG_CATALOG . LOWER(x), \"pg_catalog\".\"lower\"(x), \"lower\"(x), pg_catalog.numeric(1)",
		"select x::vector(3), x :: numeric(10, 2) from t", "select * from unnest($1::int[]) as t (a), generate_series(1, 2) g (n)",
		"with x (a) as (select 1), y (b) as (select 2) select * from x, y", "with recursive n (i) as (select 1) select i from n",
		"select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)", "select * from pg_advisory_lock, t",
		"select version(), current_schema(), pg_catalog.format_type(a, b), current_setting('x'), has_table_privilege('t', 'select')",
		"select information_schema._pg_truetypid(a, b)",
		"copy (select a from t) to stdout", "copy t (a, b) to stdout", "vacuum (full) t (a)",
		"grant select (a), update (b) on t to r", "comment on function f(int) is 'x'", "alter function f(int) set work_mem = 1",
		"alter role r set work_mem = 1", "alter table t alter x set default 1", "rollback", "abort", "savepoint a", "release a",
		"create function f(a int) returns int as $$ begin perform set_config('a', 'b', false); end $$ language plpgsql",
		"create trigger g before insert on t execute function f()", "import foreign schema s from server x into temp",
		"notify x", "fetch all from c", "declare c cursor for select hold from t", "declare c cursor without hold for select 1",
		"select 1 into temp", "select 1 into temp from t", "select * into u from t", "select * from pg_temp.t",
		"lock table t", "truncate t", "explain select 1", "explain (analyze, costs off) select lower(x) from t",
		"select 'a' 'b' = u&'c' and b'1' = x'f'", "select temperature from template", "select endless from recommit",
		"select insert, merge from copies", "select distinct on (a) lower(b) from t", "begin2", "start_replication",
	} {
		if got := read([]byte(text)); got.marks != 0 || got.names != nil {
			t.Errorf("%q: %v, names %q", text, got.marks, got.names)
		}
	}
}

func TestSettingsAreNamed(t *testing.T) {
	check(t, []told{
		{"SET statement_timeout = 5", unlike, "statement_timeout"},
		{"set\n\tSearch_Path to x", unlike, "search_path"},
		{`SET "Search_Path" = x`, unlike, "search_path"},
		{`SET "My""App".User = x`, unlike, `my"app.user`},
		{"set session work_mem = 1", unlike, "work_mem"},
		{"set sort_mem = 1", unlike, "work_mem"},
		{"SELECT 1; SET x.y = 1; set x.y = 2; set z = 3", unlike, "x.y z"},
		{"/* a /* b */ */ SET ROLE other -- c", unlike, "role"},
		{"set session role other", unlike, "role"},
		{"SET SESSION AUTHORIZATION x", unlike, "role session_authorization"},
		{"SET session.x = 1", unlike, "session.x"},
		{"SET SESSION authorization.x = 1", unlike, "authorization.x"},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", unlike,
			"default_transaction_isolation default_transaction_read_only default_transaction_deferrable"},
		{"SET XML OPTION DOCUMENT", unlike, "xmloption"},
		{"SET SCHEMA 'x'", unlike, "search_path"},
		{"SET TIME ZONE 'UTC'", tracked, "timezone"},
		{"set session time zone 'UTC'", tracked, "timezone"},
		{"SET TIMEZONE TO 'UTC'", tracked, "timezone"},
		{"SET NAMES 'UTF8'", tracked, "client_encoding"},
		{"SET application_name = 'a;b'", tracked, "application_name"},
		{`SET "application_name" = 'a'`, tracked, "application_name"},
		{"SET application_name.x = 1", unlike, "application_name.x"},
		{"SET names.x = 1", unlike, "names.x"},
		{"SET time.zone = 1", unlike, "time.zone"},
		{"SET LOCAL x = 1", harmlessSet | setsLocal, ""},
		{" set local x = 1 ; -- SET y", harmlessSet | setsLocal, ""},
		{"SET LOCAL TIME ZONE 'UTC'", harmlessSet | setsLocal, ""},
		{"SET TRANSACTION READ ONLY", harmlessSet, ""},
		{"set session transaction read only", harmlessSet, ""},
		{"SET CONSTRAINTS ALL DEFERRED", harmlessSet, ""},
		{"SET SEED TO 0.5", harmlessSet, ""},
		{"begin; set local x = 1; select 1; commit", harmlessSet | setsLocal | begins | commits, ""},
		{"SET LOCAL x = 1; SET y = 2", unlike | setsLocal, "y"},
		{"SET LOCAL x = 1; ; SET names.x = 2", unlike | setsLocal, "names.x"},
		{"SET /* LOCAL */ x = 1", unlike, "x"},
		{"SET -- local\n x = 1", unlike, "x"},
		{`SET "local".x = 1`, unlike, "local.x"},
		{`SET "local" = 1`, unlike, "local"},
		{"SET local.x = 1", unlike, "local.x"},
		{"SET SESSION transaction . x = 1", unlike, "transaction.x"},
		{"set a = 1; set", unlike | changes | resets, "a"},
		{"set ; listen x", setsUntracked | resets | changes | listens, ""},
	})
}

func TestResetsAreNamed(t *testing.T) {
	check(t, []told{
		{"RESET work_mem", resets, "work_mem"},
		{`reset "My".Role`, resets, "my.role"},
		{"RESET ROLE", resets, "role"},
		{"RESET SESSION AUTHORIZATION", resets, "role session_authorization"},
		{"RESET session.x", resets, "session.x"},
		{"RESET TIME ZONE", resets, "timezone"},
		{"RESET TRANSACTION ISOLATION LEVEL", resets, "transaction_isolation"},
		{"RESET ALL", resetsAll, ""},
		{"RESET all.x", resets, "all.x"},
		{"DISCARD ALL", resetsAll | forgets | unmakes, ""},
		{"discard plans", unmakes, ""},
		{"SET work_mem TO DEFAULT", resets | setsUntracked, "work_mem"},
		{"set session work_mem = default", resets | setsUntracked, "work_mem"},
		{"SET SESSION AUTHORIZATION DEFAULT", resets | setsUntracked, "role session_authorization"},
		{"SET TIME ZONE LOCAL", resets | harmlessSet, "timezone"},
		{"SET TIME ZONE DEFAULT", resets | harmlessSet, "timezone"},
		{"SET NAMES; SELECT 1", resets | harmlessSet, "client_encoding"},
		{"SET ROLE NONE", unlike, "role"},
	})
}

func TestSetConfigIsNamed(t *testing.T) {
	check(t, []told{
		{"SELECT set_config('a.B', 'c', false)", byCall, "a.b"},
		{"SELECT set_config ( 'a''b' /* x */, 'c', $1)", byCall, "a'b"},
		{"SELECT \"set_config\"('a', 'b', false)", byCall, "a"},
		{"SELECT pg_catalog . \"set_config\"('a', 'b', false)", byCall, "a"},
		{"SELECT Pg_Catalog.Set_Config('search_path', f(1), false)", byCall | code, "search_path"},
		{"SELECT set_config('TimeZone', 'UTC', false)", sets, "timezone"},
		{"SELECT set_config('a', 'b', not true)", byCall, "a"},
		{"SELECT set_config('a', 'b', true and x)", byCall, "a"},
		{"SELECT set_config('a', 'b', array[false, true])", byCall, "a"},
		{"SELECT set_config('a', 'b', (false, true))", byCall, "a"},
		{"SELECT set_config('a', 'b', 't'), set_config('c', 'd', 'f')", byCall | setsLocal, "c"},
		{"SELECT set_config('a', set_config('b', 'c', false), true)", byCall | setsLocal, "b"},
		{"SELECT set_config('a', 'b', true", byCall, "a"},
		{"SELECT set_config(", byCall | changes, ""},
		{"SELECT set_config($1, 'b', false)", byCall | changes, ""},
		{"SELECT set_config(E'a', 'b', false)", byCall | changes, ""},
		{"SELECT set_config('a' || 'b', 'c', false)", byCall | changes, ""},
		{"SELECT set_config(setting_name => 'a', new_value => 'b', is_local => true)", byCall | changes, ""},
		{"SELECT set_config('a', '" + strings.Repeat("(", 99) + "', true)", setsLocal, ""},
		{"select set_config('a.b', $1, true)", setsLocal, ""},
		{"select set_config($1, $2, TRUE)", setsLocal, ""},
		{"select set_config('a', f.x, 'on') from f", setsLocal, ""},
		{"SELECT set_config('a', x" + strings.Repeat("+ 1", argumentLimit) + ", true)", byCall, "a"},
		{"SELECT public.set_config('a', 'b', false)", code, ""},
		{"insert into t values (set_config('a', 'b', false))", byCall | advances, "a"},
	})
}

func TestCodeMayChangeAnything(t *testing.T) {
	check(t, []told{
		{"DO $$ BEGIN SET x = 1; END $$", code, ""},
		{"CALL p(1)", code, ""},
		{"EXECUTE p", code, ""},
		{"EXECUTE p (1)", code, ""},
		{"explain analyze execute p(1)", code, ""},
		{"create table t as execute p", code, ""},
		{"LOAD 'x'", changes, ""},
		{"CREATE EXTENSION x", changes, ""},
		{"alter extension x update", changes, ""},
		{"SELECT f(1)", code, ""},
		{"SELECT f /* x */ (1)", code, ""},
		{`SELECT "F"(1)`, code, ""},
		{`SELECT "Lower"(x)`, code, ""},
		{`SELECT "values"(x)`, code, ""},
		{"SELECT public.lower(x)", code, ""},
		{"SELECT a.b.f(x)", code, ""},
		{"SELECT * FROM f(1)", code, ""},
		{"SELECT * FROM f(1) AS t (a, b)", code, ""},
		{"SELECT * FROM f(a) as (x int)", code, ""},
		{"SELECT * FROM t JOIN f(1) ON g(2)", code, ""},
		{"SELECT 1 FROM t JOIN u ON f(t.x)", code, ""},
		{"SELECT DISTINCT ON (a) f(b) FROM t", code, ""},
		{"SELECT a OPERATOR(pg_catalog.+) f(b)", code, ""},
		{"SELECT x[1:f(2)] FROM t", code, ""},
		{`SELECT U&"f\0061"(1)`, code, ""},
		{`SELECT U&"f!0061" UESCAPE '!' (1)`, code, ""},
		{"WITH x (a) AS (SELECT f(1)) SELECT 1", code, ""},
		{"WITH x (a) AS (SELECT 1) SELECT 1, f(a) FROM x", code, ""},
		{"UPDATE t SET a = f(1)", code, ""},
		{"DELETE FROM t USING f(1)", code, ""},
		{"copy (select f(1)) to stdout", code, ""},
		{"(select f(1))", code, ""},
		{"EXPLAIN (SELECT f(1)) UNION SELECT 2", code, ""},
		{"PREPARE p (int) AS SELECT f($1)", code | preparesSQL, ""},
	})
}

func TestWhatOutlivesTheTransactionIsSeen(t *testing.T) {
	check(t, []told{
		{"CREATE TEMP TABLE t (n int)", makesTemp, ""},
		{"create local temporary table t (n int)", makesTemp, ""},
		{"create global temp sequence s", makesTemp, ""},
		{"CREATE OR REPLACE TEMP VIEW v AS SELECT 1", makesTemp, ""},
		{"CREATE /* x */ TEMP -- y\n TABLE t ()", makesTemp, ""},
		{"explain analyze create temp table t as select 1", makesTemp, ""},
		{"CREATE TABLE pg_temp.t (n int)", makesTemp, ""},
		{`CREATE TABLE "pg_temp" . t (n int)`, makesTemp, ""},
		{"create function pg_temp_3.f(int) returns int return 1", makesTemp, ""},
		{"SELECT 1 INTO TEMP t", makesTemp, ""},
		{`SELECT 1 INTO LOCAL TEMPORARY TABLE "t" FROM u`, makesTemp, ""},
		{"SELECT 1 INTO pg_temp.t", makesTemp, ""},
		{"INSERT INTO pg_temp.t VALUES (1)", advances, ""},
		{"LISTEN jobs", listens, ""},
		{"SELECT 'it''s'; LISTEN x", listens, ""},
		{"SELECT $1; LISTEN x", listens, ""},
		{"SELECT a$b$c; LISTEN x", listens, ""},
		{"DO $f$ SELECT $$ $$; LISTEN x $f$; LISTEN y", code | listens, ""},
		{`SELECT 'a\'; LISTEN x`, listens, ""},
		{"UNLISTEN jobs", unmakes, ""},
		{"SELECT pg_advisory_lock(1)", locks, ""},
		{"SELECT PG_TRY_ADVISORY_LOCK_SHARED (1)", locks, ""},
		{`SELECT "pg_advisory_lock_shared"(1)`, locks, ""},
		{`SELECT pg_catalog."pg_try_advisory_lock"(1)`, locks, ""},
		{"SELECT pg_advisory_unlock(1)", unmakes, ""},
		{"SELECT pg_advisory_unlock_all()", unmakes, ""},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", holds, ""},
		{"declare c scroll cursor with /* x */ hold for select 1", holds, ""},
		{"CLOSE c", unmakes, ""},
		{"PREPARE p AS SELECT 1", preparesSQL, ""},
		{"prepare transaction as select 1", preparesSQL, ""},
		{"prepare transaction (int) as select $1", preparesSQL, ""},
		{"PREPARE TRANSACTION 'x'", commits, ""},
		{"DEALLOCATE p", forgets | unmakes, ""},
		{"DROP FUNCTION f(int)", unmakes, ""},
	})
}

func TestTransactionsAndNumbersAreSeen(t *testing.T) {
	check(t, []told{
		{"BEGIN", begins, ""},
		{"-- x\nstart transaction", begins, ""},
		{"COMMIT", commits, ""},
		{"end;", commits, ""},
		{"COMMIT PREPARED 'x'", commits, ""},
		{"SELECT currval('s')", usesNumbers, ""},
		{`SELECT pg_catalog."lastval"()`, usesNumbers, ""},
		{"SELECT nextval('s')", advances, ""},
		{"SELECT setval('s', 1)", advances, ""},
		{"INSERT INTO t (a, b) VALUES (1, lower($1)) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2) RETURNING id", advances, ""},
		{"insert into a.b as c (d) default values", advances, ""},
		{"WITH x AS (INSERT INTO t (a) VALUES (1) RETURNING id) SELECT * FROM x", advances, ""},
		{"MERGE INTO t USING u ON t.a = u.a WHEN NOT MATCHED THEN INSERT (a) VALUES (1)", advances, ""},
		{"COPY t (a) FROM STDIN", advances, ""},
		{"UPDATE t SET id = DEFAULT", advances, ""},
		{"with x as (update t set id = default returning 1) select 1", advances, ""},
		{"UPDATE t SET id = 1", 0, ""},
	})
}

func TestLongTextMayBeAnything(t *testing.T) {
	got := read(make([]byte, scanLimit+1))
	for _, b := range bits {
		if (got.marks&b.mark != 0) != (b.mark != harmlessSet) {
			t.Errorf("%v", b.name)
		}
	}
	if got.marks&(refused|anew) != 0 {
		t.Error("it was not sent in the place of another")
	}
}

// TestManyNamesAreAny: a client cannot have us keep as many as fit into a text.
func TestManyNamesAreAny(t *testing.T) {
	var text strings.Builder
	for i := range nameCount + 1 {
		text.WriteString("set x" + strconv.Itoa(i) + " = 1;")
	}
	if got := read([]byte(text.String())); len(got.names) != nameCount || got.marks&mayChange == 0 {
		t.Errorf("%d names, %v", len(got.names), got.marks)
	}
}

func TestDeallocatedReadsTheName(t *testing.T) {
	long := strings.Repeat("é", 40)
	for text, want := range map[string]string{
		"DEALLOCATE st1": "st1", "/* app=x */ DEALLOCATE st1": "st1", "-- app=x\nDEALLOCATE ST1 ; ; -- y": "st1",
		"deallocate prepare St1 ;": "st1", `DEALLOCATE "St""1"`: `St"1`, "DEALLOCATE prepare": "prepare", "deallocate prepare;": "prepare",
		"DEALLOCATE PREPARE prepare": "prepare", `deallocate "all"`: "all", "; deallocate x": "x", "deallocate É$1": "É$1",
		"deallocate " + long: long[:62], `deallocate "` + strings.Repeat("X", 70) + `"`: strings.Repeat("X", 63),
	} {
		if name, all, ok := deallocated([]byte(text)); name != want || all || !ok {
			t.Errorf("%q: %q %v %v, want %q", text, name, all, ok, want)
		}
	}
	for _, text := range []string{"DEALLOCATE ALL", "deallocate prepare all;"} {
		if _, all, ok := deallocated([]byte(text)); !all || !ok {
			t.Errorf("%q: %v %v", text, all, ok)
		}
	}
	for _, text := range []string{
		"", "deallocate", "deallocate;", "deallocate a b", "deallocate a; select 1", "deallocate a.b", "select 1", `deallocate ""`,
		`deallocate "a`, `deallocate "a""`, "deallocate 'a'", "deallocate 1", `deallocate U&"a"`, "deallocate.x", `"deallocate" x`,
	} {
		if name, all, ok := deallocated([]byte(text)); ok {
			t.Errorf("%q: %q %v", text, name, all)
		}
	}
}

// FuzzRead: whatever the text, reading it comes to an end, and neither comments nor white
// space nor another statement ahead, nor the case of its words, change what it tells.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"SET x = 1", "/*/**/", "$a$ $a", "E'\\", "'", "\"", "--", "$", "select $1$", "select set_config(", "set", "reset session",
		"explain (a", "create or", "with x(a) as", "a.\"b\".c(", "prepare transaction", "set_config('a", "deallocate \"",
		"select set_config('a', 'b', 't'), pg_catalog.\"set_config\"($1)", "select into temp",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > scanLimit/2 {
			return
		}
		want := read(text)
		same := func(how string, text []byte) {
			if got := read(text); got.marks != want.marks || !slices.Equal(got.names, want.names) {
				t.Errorf("%s: %q: %v %q, and not %v %q", how, text, got.marks, got.names, want.marks, want.names)
			}
		}
		same("behind a comment", append([]byte("/* SET */ -- x\n"), text...))
		same("behind a statement", append([]byte("select lower('x') as temp;"), text...))
		if !bytes.ContainsAny(text, `"$`) { // in which the case has a meaning
			loud := bytes.Clone(text)
			for i, c := range loud {
				loud[i] = upper(c)
			}
			same("in upper case", loud)
		}
		if name, all, ok := deallocated(text); ok && (want.marks&forgets == 0 || all != (name == "")) {
			t.Errorf("%q: %q %v", text, name, all)
		}
	})
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

func TestReadingAllocatesNothing(t *testing.T) {
	for name, text := range benchTexts {
		bytes := []byte(text)
		if n := testing.AllocsPerRun(100, func() { read(bytes) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var benchTexts = map[string]string{
	"select": "select abalance from pgbench_accounts where aid = $1",
	"insert": "INSERT INTO orders (customer, total, note, created) VALUES ($1, $2, 'a literal of some words', now()) RETURNING id",
	"orm": `SELECT "users"."id", "users"."name", "users"."email", count("posts"."id") AS n FROM "users" LEFT OUTER JOIN "posts" ` +
		`ON "posts"."user_id" = "users"."id" WHERE "users"."active" = TRUE AND "users"."created_at" >= $1 ` +
		`GROUP BY "users"."id" ORDER BY lower("users"."name") ASC LIMIT 25 OFFSET 50`,
}

func BenchmarkRead(b *testing.B) {
	for name, text := range benchTexts {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for bytes := []byte(text); b.Loop(); {
				read(bytes)
			}
		})
	}
}
