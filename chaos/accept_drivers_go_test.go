package chaos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/armordb/armordb/chaos/site"
)

// What the drivers of Go are answered: the same as the scripts in testdata/drivers, in
// this process.

// goURL is the connection string of both.
func (s seat) goURL(t *testing.T) string {
	t.Chdir(s.dir)
	host, port, database := s.host, s.port, s.database
	if s.password != "" { // PostgreSQL itself
		return (&url.URL{Scheme: "postgres", User: url.UserPassword(site.AppRole, s.password), Host: host + ":" + port, Path: database,
			RawQuery: "sslmode=disable"}).String()
	}
	// docs: pgx and lib/pq
	connection := fmt.Sprintf("postgres://app@%s:%s/%s?sslmode=verify-full"+
		"&sslrootcert=ca.crt&sslcert=client.crt&sslkey=client.key", host, port, database)
	// docs: end
	return connection
}

// notes are a transcript in the making.
type notes struct {
	strings.Builder
	t *testing.T
}

func (n *notes) attempt(what string, do func() (any, error)) {
	switch v, err := do(); {
	case err == nil:
		fmt.Fprintf(n, "%s -> %v\n", what, v)
	default:
		fmt.Fprintf(n, "%s -> %s\n", what, said(err))
	}
}

// said is an error without what differs by place and time.
func said(err error) string {
	if err == nil {
		return "done"
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return strings.Join([]string{e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.TableName, e.ConstraintName}, " ")
	}
	if e := (*pq.Error)(nil); errors.As(err, &e) {
		return strings.Join([]string{e.Severity, string(e.Code), e.Message, e.Detail, e.Hint, e.Table, e.Constraint}, " ")
	}
	return err.Error()
}

func pgxTranscript(t *testing.T, s seat) string {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	n := &notes{t: t}
	config, err := pgx.ParseConfig(s.goURL(t))
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, e *pgconn.Notice) {
		fmt.Fprintln(n, "notice", e.Severity, e.Code, e.Message, e.Detail)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows := func(sql string, args ...any) func() (any, error) {
		return func() (any, error) {
			r, err := conn.Query(ctx, sql, args...)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(r, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
		}
	}
	exec := func(sql string, args ...any) func() (any, error) {
		return func() (any, error) { return conn.Exec(ctx, sql, args...) }
	}
	n.attempt("values", rows("SELECT 1, NULL, 'text', true, '\\x00ff'::bytea, ARRAY[1,2], date '2001-02-03'"))
	for i := range 5 {
		n.attempt("prepared", rows("SELECT $1::int + 1", i))
	}
	n.attempt("division", rows("SELECT 1/$1::int", 0))
	n.attempt("syntax", rows("SELEC 1"))
	n.attempt("notice", exec("DO $$ BEGIN RAISE NOTICE 'told'; END $$"))
	n.attempt("table", exec("CREATE TABLE drv_pgx (id int PRIMARY KEY, v text)"))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		n.attempt(mode.String(), exec("INSERT INTO drv_pgx VALUES ($1, $2)", mode, int(mode), "é"))
		n.attempt(mode.String(), exec("INSERT INTO drv_pgx VALUES ($1, $2)", mode, int(mode), "again"))
	}
	n.attempt("batch", func() (any, error) { return batch(ctx, conn, 10, 11, 12) })
	n.attempt("batch that fails", func() (any, error) { return batch(ctx, conn, 13, 10, 14) })
	n.attempt("transaction", func() (any, error) {
		return nil, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			n.attempt("savepoint", func() (any, error) {
				return nil, pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT 1/0").Scan(new(int)) })
			})
			_, err := tx.Exec(ctx, "INSERT INTO drv_pgx VALUES (50, 'fifty')")
			return err
		})
	})
	n.attempt("copy in", func() (any, error) {
		return conn.CopyFrom(ctx, pgx.Identifier{"drv_pgx"}, []string{"id", "v"}, pgx.CopyFromRows([][]any{{60, "a"}, {61, "b"}}))
	})
	n.attempt("copy that fails", func() (any, error) {
		return conn.CopyFrom(ctx, pgx.Identifier{"drv_pgx"}, []string{"id", "v"}, pgx.CopyFromRows([][]any{{62, "a"}, {60, "b"}}))
	})
	n.attempt("copy out", func() (any, error) {
		var out strings.Builder
		_, err := conn.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM drv_pgx ORDER BY id) TO STDOUT")
		return out.String(), err
	})
	n.attempt("pipeline", func() (any, error) { return pipeline(ctx, conn) })
	n.attempt("cancel", func() (any, error) { return nil, sleepUntilCancelled(ctx, s.goURL(t), conn) })
	n.attempt("after it", rows("SELECT 5"))
	n.attempt("zone", exec("SET TimeZone = 'Asia/Tokyo'"))
	n.attempt("zone", rows("SELECT (timestamptz '2001-02-03 04:05:06+00')::text"))
	n.attempt("changed", rows("SELECT * FROM drv_pgx WHERE id = 50"))
	n.attempt("changed", exec("ALTER TABLE drv_pgx ADD COLUMN more int"))
	n.attempt("changed", rows("SELECT * FROM drv_pgx WHERE id = 50"))
	n.attempt("changed", rows("SELECT * FROM drv_pgx WHERE id = 50"))
	// From here on, what is kept of a session.
	n.attempt("setting", exec("SET work_mem = '7MB'"))
	n.attempt("setting", rows("SHOW work_mem"))
	n.attempt("temporary table", exec("CREATE TEMP TABLE drv_temp (a int)"))
	n.attempt("temporary table", rows("SELECT count(*) FROM drv_temp"))
	n.attempt("PREPARE", exec("PREPARE plan AS SELECT 7"))
	n.attempt("PREPARE", rows("EXECUTE plan"))
	n.attempt("LISTEN", exec("LISTEN channel"))
	n.attempt("NOTIFY", exec("NOTIFY channel, 'hello'"))
	n.attempt("LISTEN", func() (any, error) {
		soon, stop := context.WithCancel(ctx)
		stop() // what has come has come with the NOTIFY
		heard, err := conn.WaitForNotification(soon)
		if err != nil {
			return "nothing", nil //nolint:nilerr // that nothing was heard is what is to be told
		}
		return fmt.Sprint(heard.Channel, heard.Payload, heard.PID == conn.PgConn().PID()), nil
	})
	n.attempt("drop", exec("DROP TABLE drv_pgx"))
	return n.String()
}

func batch(ctx context.Context, conn *pgx.Conn, ids ...int) (any, error) {
	b := &pgx.Batch{}
	for _, id := range ids {
		b.Queue("INSERT INTO drv_pgx VALUES ($1, 'batch')", id)
	}
	b.Queue("SELECT count(*) FROM drv_pgx")
	results := conn.SendBatch(ctx, b)
	defer results.Close()
	for range ids {
		if _, err := results.Exec(); err != nil {
			return nil, err
		}
	}
	var count int
	err := results.QueryRow().Scan(&count)
	return count, err
}

// pipeline sends cycles without waiting for their answers; the second one fails.
func pipeline(ctx context.Context, conn *pgx.Conn) (any, error) {
	p := conn.PgConn().StartPipeline(ctx)
	for _, divisor := range []string{"1", "0", "2"} {
		p.SendPrepare("by_"+divisor, "SELECT 10 / $1::int", nil)
		p.SendQueryParams("SELECT 10 / $1::int", [][]byte{[]byte(divisor)}, nil, nil, nil)
		p.SendQueryPrepared("by_"+divisor, [][]byte{[]byte(divisor)}, nil, nil)
		if err := p.Sync(); err != nil {
			return nil, err
		}
	}
	var all []string
	for {
		result, err := p.GetResults()
		switch r := result.(type) {
		case *pgconn.ResultReader:
			read := r.Read()
			all = append(all, fmt.Sprintf("%s %s", read.Rows, said(read.Err)))
		case *pgconn.StatementDescription:
			all = append(all, r.Name)
		case *pgconn.PipelineSync:
			all = append(all, "sync")
		case nil:
			if err == nil {
				return all, p.Close()
			}
			all = append(all, said(err))
		}
	}
}

// sleepUntilCancelled is cancelled once PostgreSQL runs it.
func sleepUntilCancelled(ctx context.Context, connection string, conn *pgx.Conn) error {
	const sleep = "SELECT pg_sleep(60) /* pgx */"
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, sleep)
		ended <- err
	}()
	other, err := pgx.Connect(ctx, connection)
	if err != nil {
		return err
	}
	defer other.Close(context.WithoutCancel(ctx))
	_, err = site.Poll(ctx, func() (int, error) {
		var one int
		return one, other.QueryRow(ctx, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query = $1", sleep).Scan(&one)
	})
	if err != nil {
		return err
	}
	return errors.Join(conn.PgConn().CancelRequest(ctx), <-ended)
}

func pqTranscript(t *testing.T, s seat) string {
	n := &notes{t: t}
	connector, err := pq.NewConnector(s.goURL(t))
	if err != nil {
		t.Fatal(err)
	}
	noticing := pq.ConnectorWithNoticeHandler(connector,
		func(e *pq.Error) { fmt.Fprintln(n, "notice", e.Severity, e.Code, e.Message, e.Detail) })
	pool := sql.OpenDB(noticing)
	defer pool.Close()
	db, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	value := func(query string, args ...any) func() (any, error) {
		return func() (any, error) {
			var v any
			err := db.QueryRowContext(t.Context(), query, args...).Scan(&v)
			return v, err
		}
	}
	exec := func(query string, args ...any) func() (any, error) {
		return func() (any, error) {
			r, err := db.ExecContext(t.Context(), query, args...)
			if err != nil {
				return nil, err
			}
			return r.RowsAffected()
		}
	}
	for _, sql := range []string{"1", "NULL", "'text'::text", "true", "1.5::float8", "'\\x00ff'::bytea", "date '2001-02-03'"} {
		n.attempt(sql, value("SELECT "+sql))
	}
	n.attempt("parameter", value("SELECT $1::int + 1", 41))
	n.attempt("division", value("SELECT 1/$1::int", 0))
	n.attempt("syntax", value("SELEC 1"))
	n.attempt("notice", exec("DO $$ BEGIN RAISE NOTICE 'told' USING DETAIL = 'in detail'; END $$"))
	n.attempt("table", exec("CREATE TABLE drv_pq (id int PRIMARY KEY, v text)"))
	insert, err := db.PrepareContext(t.Context(), "INSERT INTO drv_pq VALUES ($1, $2)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		n.attempt("prepared", func() (any, error) { r, err := insert.Exec(i%7, "é"); return r != nil, err })
	}
	if err := insert.Close(); err != nil {
		t.Fatal(err)
	}
	n.attempt("transaction", func() (any, error) {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			return nil, err
		}
		n.attempt("in it", func() (any, error) { return tx.Exec("SELECT 1/0") })
		n.attempt("failed", func() (any, error) { return tx.Exec("SELECT 1") })
		return nil, tx.Commit()
	})
	n.attempt("copy in", func() (any, error) { return nil, pqCopy(t, db, "60", "61") })
	n.attempt("copy that fails", func() (any, error) { return nil, pqCopy(t, db, "62", "nonsense") })
	n.attempt("count", value("SELECT count(*) FROM drv_pq"))
	n.attempt("cancel", func() (any, error) {
		ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer stop()
		other, err := pool.Conn(ctx) // it is of no use afterwards
		if err != nil {
			return nil, err
		}
		defer other.Close()
		_, err = other.ExecContext(ctx, "SELECT pg_sleep(60)")
		return nil, err
	})
	n.attempt("after it", value("SELECT 5"))
	n.attempt("zone", exec("SET TimeZone = 'Asia/Tokyo'"))
	n.attempt("zone", value("SELECT (timestamptz '2001-02-03 04:05:06+00')::text"))
	// From here on, what is kept of a session.
	n.attempt("setting", exec("SET work_mem = '7MB'"))
	n.attempt("setting", value("SHOW work_mem"))
	n.attempt("temporary table", exec("CREATE TEMP TABLE drv_temp (a int)"))
	n.attempt("temporary table", value("SELECT count(*) FROM drv_temp"))
	n.attempt("PREPARE", exec("PREPARE plan AS SELECT 7"))
	n.attempt("PREPARE", value("EXECUTE plan"))
	n.attempt("drop", exec("DROP TABLE drv_pq"))
	return n.String()
}

// pqCopy is how lib/pq copies: by a statement in a transaction.
func pqCopy(t *testing.T, db *sql.Conn, ids ...string) error {
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		return err
	}
	stmt, err := tx.Prepare("COPY drv_pq (id, v) FROM STDIN")
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	for _, id := range ids {
		if _, err := stmt.Exec(id, "copied"); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if _, err := stmt.Exec(); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return errors.Join(stmt.Close(), tx.Commit())
}
