package pooler_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/pgtest"
)

const (
	asker = "armor_auth"
	// lookupFunction is the one of PgBouncer's documentation: for a role that there is not,
	// it returns a row of NULLs.
	lookupFunction = `CREATE FUNCTION user_lookup(in i_username text, out uname text, out phash text) RETURNS record AS $$
BEGIN
    SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = i_username INTO uname, phash;
    RETURN;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER`
	lookupStatement = "SELECT uname, phash FROM user_lookup($1)"
)

// lookedUp is a house whose clients' passwords are those of its own PostgreSQL.
type lookedUp struct {
	*house
	mu    sync.Mutex
	asked map[string]int // by result
}

func withLookups(t *testing.T, options ...option) *lookedUp {
	t.Helper()
	pg := ownPostgres(t)
	_, err := pg.SQL(pgtest.Database, "CREATE ROLE "+asker+" LOGIN PASSWORD '"+pgtest.Password+"'", lookupFunction,
		"REVOKE ALL ON FUNCTION user_lookup(text) FROM public", "GRANT EXECUTE ON FUNCTION user_lookup(text) TO "+asker)
	if err != nil {
		t.Fatal(err)
	}
	l := &lookedUp{asked: map[string]int{}}
	hooked := func(h *house, c *pooler.Config) {
		h.factor, h.database.Query = armor.SCRAM, armor.AuthQuery{Role: asker, Statement: lookupStatement}
		h.database.Roles = append(h.database.Roles, armor.RoleAuth{Role: asker, Secret: "orders"})
		c.DecoyKey, c.GuessesPerSecond = []byte("the same on all nodes"), 1000
		c.Hooks.Lookup = func(result string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.asked[result]++
		}
	}
	l.house = newHouse(t, append([]option{on(pg, pg.TCP()), hooked}, options...)...)
	return l
}

func (l *lookedUp) count(result string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[result]
}

// enter logs in by a real client.
func (l *lookedUp) enter(password string) error {
	ctx, stop := context.WithTimeout(l.t.Context(), patience)
	defer stop()
	user, err := realClients["pgx"](ctx, login{portOf(l.t, l.address), pgtest.Role, password, "disable", "disable"})
	if err == nil && user != pgtest.Role {
		err = fmt.Errorf("PostgreSQL sees %q", user)
	}
	return err
}

func (l *lookedUp) wantWrong(what string, err error) {
	l.t.Helper()
	if err == nil || !strings.Contains(err.Error(), "28P01") {
		l.t.Errorf("%s: %v", what, err)
	}
}

func TestPasswordsAreLookedUpInPostgreSQL(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		l := withLookups(t, inMode(mode))
		for range 3 {
			l.must(l.enter(pgtest.Password))
		}
		l.wantWrong("a wrong password", l.enter("wrong"))
		if l.count("found") != 1 {
			t.Errorf("asked %v", l.asked)
		}
		if held := l.Held()[l.pool.Key()]; held > l.pool.Budget {
			t.Errorf("%d held", held)
		}
	})
}

// TestDocumentedLookupWorks runs what docs/operate.md tells operators to.
func TestDocumentedLookupWorks(t *testing.T) {
	text, err := os.ReadFile("../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```sql\n")
	block, _, ok := strings.Cut(block, "```")
	statement := regexp.MustCompile(`statement: "(.*)"`).FindSubmatch(text)
	if !ok || statement == nil || !strings.Contains(block, "CREATE ROLE "+asker) {
		t.Fatal("docs/operate.md has no lookup function any more")
	}
	l := withLookups(t)
	_, err = l.server.SQL(pgtest.Database, "DROP FUNCTION user_lookup; DROP ROLE "+asker,
		strings.ReplaceAll(block, "'…'", "'"+pgtest.Password+"'"))
	l.must(err)
	l.database.Query.Statement = string(statement[1])
	l.configure()
	l.must(l.enter(pgtest.Password))
	l.wantWrong("a wrong password", l.enter("wrong"))
	if _, err := l.server.SQL("postgres", "ALTER ROLE "+pgtest.Role+" VALID UNTIL '2020-01-01'"); err != nil {
		t.Fatal(err)
	}
	_, err = l.Order(armor.PoolOrder{Verb: armor.ReconnectPool, Environment: "production", Pool: "orders"})
	l.must(err)
	l.wantWrong("a password that has run out", l.enter(pgtest.Password))
	if l.count("none") != 1 {
		t.Errorf("asked %v", l.asked)
	}
}

// TestLookupIsInsideTheBudget: a pool of one server connection serves both.
func TestLookupIsInsideTheBudget(t *testing.T) {
	l := withLookups(t, withBudget(1))
	most := 0
	watched, stop := make(chan struct{}), make(chan struct{})
	observer := l.observer()
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, err := observer.Query("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('" + asker + "', '" + pgtest.Role + "')")
			if err == nil && n[0] != "0" && n[0] != "1" {
				most++
			}
		}
	}()
	for range 3 {
		l.must(l.enter(pgtest.Password))
		_, err := l.Order(armor.PoolOrder{Verb: armor.ReconnectPool, Environment: "production", Pool: "orders"})
		l.must(err)
	}
	close(stop)
	<-watched
	if most > 0 || l.count("found") != 3 {
		t.Errorf("above the budget %d times; asked %v", most, l.asked)
	}
}

func TestChangedPasswordHoldsSoon(t *testing.T) {
	l := withLookups(t)
	const changed = "another horse"
	change := func(to string) {
		t.Helper()
		_, err := l.server.SQL("postgres", "ALTER ROLE "+pgtest.Role+" PASSWORD '"+to+"'")
		l.must(err)
	}
	l.secrets.set(pgtest.Password, changed)
	l.must(l.enter(pgtest.Password))

	change(changed)
	_, err := l.Order(armor.PoolOrder{Verb: armor.ReconnectPool, Environment: "production", Pool: "orders"})
	l.must(err)
	l.wantWrong("the former one, after RECONNECT", l.enter(pgtest.Password))
	l.must(l.enter(changed))

	// Without RECONNECT: the right one fails once at most, as soon as the answer is not a
	// very new one.
	change(pgtest.Password)
	l.await("the new one is right", func() bool { return l.enter(pgtest.Password) == nil })
	l.wantWrong("the former one", l.enter(changed))
}

// TestGuessesDoNotMakePostgreSQLWork: it is asked once a second at most.
func TestGuessesDoNotMakePostgreSQLWork(t *testing.T) {
	l := withLookups(t)
	began := time.Now()
	for range 30 {
		l.wantWrong("a guess", l.enter("wrong"))
	}
	if most := 1 + int(time.Since(began)/time.Second); l.count("found") > most {
		t.Errorf("asked %v in %s", l.asked, time.Since(began))
	}
}

// TestRoleThatPostgreSQLDoesNotKnowMeetsTheDecoy, the same one as with a file.
func TestRoleThatPostgreSQLDoesNotKnowMeetsTheDecoy(t *testing.T) {
	l, files := withLookups(t), newHouse(t, withPasswords(t))
	l.database.Roles = append(l.database.Roles, armor.RoleAuth{Role: "nobody"}, armor.RoleAuth{Role: "no_password"})
	if _, err := l.server.SQL("postgres", "CREATE ROLE no_password LOGIN"); err != nil {
		t.Fatal(err)
	}
	l.configure()
	var seen []string
	for _, try := range []struct {
		h    *house
		role string
	}{{l.house, "nobody"}, {files, "nobody"}, {l.house, "no_password"}} {
		c, _ := try.h.begin(try.role)
		nonce, rest, _ := strings.Cut(try.h.challenge(c, "abc"), ",")
		seen = append(seen, rest)
		try.h.must(c.Send(pgtest.Encode('p', []byte("c=biws,"+nonce+",p="+strings.Repeat("A", 43)+"="))))
		fields := try.h.wantRefusal(answerError(c), "FATAL", "28P01")
		if fields['M'] != `password authentication failed for user "`+try.role+`"` || fields['D'] != "" {
			t.Errorf("%q", fields)
		}
	}
	if seen[0] != seen[1] {
		t.Errorf("the decoys differ: %q and %q", seen[0], seen[1])
	}
	if l.count("none") != 2 {
		t.Errorf("asked %v", l.asked)
	}
}

func TestMD5HashIsNoVerifier(t *testing.T) {
	l := withLookups(t)
	hash, err := l.server.SQL("postgres", "SET password_encryption = md5; ALTER ROLE "+pgtest.Role+" PASSWORD '"+pgtest.Password+"'",
		"SELECT rolpassword FROM pg_authid WHERE rolname = '"+pgtest.Role+"'")
	l.must(err)
	fields := l.wantRefusal(l.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
	if fields['M'] != "this node cannot check passwords for the database" || strings.Contains(fmt.Sprint(fields), hash) {
		t.Errorf("%q", fields)
	}
	if l.count("unfit") != 1 {
		t.Errorf("asked %v", l.asked)
	}
}

// TestOutageIsToldAndNoDecoy: a right password must not read as a wrong one.
func TestOutageIsToldAndNoDecoy(t *testing.T) {
	l := withLookups(t, withQueryWait(500*time.Millisecond))
	l.must(l.enter(pgtest.Password))
	l.server.Halt()
	_, err := l.Order(armor.PoolOrder{Verb: armor.ReconnectPool, Environment: "production", Pool: "orders"}) // what was found is forgotten
	l.must(err)
	fields := l.wantRefusal(l.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "08006")
	if fields['M'] != "PostgreSQL cannot be reached" {
		t.Errorf("%q", fields)
	}
	l.must(l.server.Restart())
	l.await("clients come in again", func() bool { return l.enter(pgtest.Password) == nil })
}

func TestQueryThatGoesWrongIsNotTakenForAnAnswer(t *testing.T) {
	l := withLookups(t, func(_ *house, c *pooler.Config) { c.LookupTimeout = 200 * time.Millisecond })
	for name, statement := range map[string]string{
		"no such function":     "SELECT * FROM nothing($1)",
		"no right":             "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1",
		"two rows":             "SELECT uname, phash FROM user_lookup($1), generate_series(1, 2)",
		"one column":           "SELECT phash FROM user_lookup($1)",
		"three columns":        "SELECT uname, phash, 1 FROM user_lookup($1)",
		"another role":         "SELECT 'x' || uname, phash FROM user_lookup($1)",
		"too slow":             "SELECT uname, phash FROM user_lookup($1), pg_sleep(60)",
		"a copy from nowhere":  "COPY user_lookup($1) FROM STDIN",
		"a transaction":        "BEGIN /* $1 */",
		"two of them":          "SELECT $1; SELECT $1",
		"a row that is a book": "SELECT $1, repeat('x', 2000000)",
	} {
		l.database.Query.Statement = statement
		l.configure()
		fields := l.wantRefusal(l.dial().Login("user", pgtest.Role, "database", "orders"), "FATAL", "57P03")
		if fields['M'] != "this node cannot check passwords for the database" || strings.Contains(fmt.Sprint(fields), "SCRAM") {
			t.Errorf("%s: %q", name, fields)
		}
	}
	l.database.Query.Statement = lookupStatement
	l.configure()
	l.must(l.enter(pgtest.Password))
	observer := l.observer()
	l.await("nothing sleeps on", func() bool {
		return l.query(observer,
			"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()")[0] == "0"
	})
}

// TestClientsThatComeAtOnceAskOnce.
func TestClientsThatComeAtOnceAskOnce(t *testing.T) {
	l := withLookups(t)
	l.database.Query.Statement = "SELECT uname, phash FROM user_lookup($1), pg_sleep(0.3)"
	l.configure()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := l.enter(pgtest.Password); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if l.count("found") != 1 {
		t.Errorf("asked %v", l.asked)
	}
}

func TestCutEndsTheWaitForALookup(t *testing.T) {
	l := withLookups(t, func(_ *house, c *pooler.Config) { c.LookupTimeout = patience })
	l.database.Query.Statement = "SELECT uname, phash FROM user_lookup($1), pg_sleep(2)"
	l.configure()
	c := l.dial()
	l.must(c.Send(pgtest.Startup("user", pgtest.Role, "database", "orders")))
	l.await("it is asked", func() bool { return l.Held()[l.pool.Key()] > 0 })
	l.last().cut(&armor.Denial{Reason: armor.ReasonRevoked, Message: "client certificate is revoked", ID: "x"})
	l.wantRefusal(answerError(c), "FATAL", "28000")
}

// TestNoClientChoosesWhichVerifiersAreFound by what it leaves on the server connection that they
// are asked for on.
func TestNoClientChoosesWhichVerifiersAreFound(t *testing.T) {
	l := withLookups(t, withBudget(1), isolated(armor.NoIsolation))
	_, err := l.server.SQL(pgtest.Database, "CREATE SCHEMA evil AUTHORIZATION "+asker, "SET password_encryption = 'scram-sha-256'",
		"CREATE ROLE decoy PASSWORD 'forged'", "CREATE TABLE evil.forged AS SELECT passwd FROM pg_shadow WHERE usename = 'decoy' UNION ALL "+
			"SELECT rolpassword FROM pg_authid WHERE rolname = 'decoy' LIMIT 1", "ALTER TABLE evil.forged OWNER TO "+asker,
		"CREATE FUNCTION evil.user_lookup(text, out uname text, out phash text) LANGUAGE sql AS 'SELECT $1, passwd FROM evil.forged'",
		"ALTER FUNCTION evil.user_lookup(text) OWNER TO "+asker)
	l.must(err)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	thief, err := pgconn.Connect(ctx, "host=127.0.0.1 port="+portOf(t, l.address)+
		" user="+asker+" password='"+pgtest.Password+"' dbname=orders sslmode=disable")
	l.must(err)
	defer thief.Close(ctx)
	_, err = thief.Exec(ctx, hidden("set search_path to evil, public")).ReadAll()
	l.must(err)
	l.wantWrong("a password that the thief has made up", l.enter("forged"))
	l.must(l.enter(pgtest.Password))
}
