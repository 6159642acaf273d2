package pooler_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestPgxWorks: a driver that prepares statements under names of its own, sends
// batches in pipelines and copies in binary, from several connections at once over
// fewer server connections.
func TestPgxWorks(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode), withBudget(2))
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		_, err := postgres.SQL(pgtest.Database, "DROP TABLE IF EXISTS stock",
			"CREATE TABLE stock (n int, s text)", "GRANT ALL ON stock TO "+pgtest.Role)
		h.must(err)
		var all []*pgx.Conn
		for range map[armor.PoolMode]int{armor.SessionMode: 2, armor.TransactionMode: 5}[mode] {
			all = append(all, h.pgx(ctx))
		}
		for round := range 5 {
			for i, conn := range all {
				h.useAll(ctx, conn, 10*round+i)
			}
		}
		var rows, sum int
		h.must(all[0].QueryRow(ctx, "SELECT count(*), sum(n) FROM stock WHERE s = $1", "batch").Scan(&rows, &sum))
		if want := 5 * len(all) * 3; rows != want {
			t.Errorf("%d rows by batches, want %d", rows, want)
		}
	})
}

func (h *house) pgx(ctx context.Context) *pgx.Conn {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.address)
	h.must(err)
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s dbname=orders sslmode=disable", host, port, pgtest.Role))
	h.must(err)
	h.t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the session may have been cut before
	return conn
}

// useAll runs what applications do.
func (h *house) useAll(ctx context.Context, conn *pgx.Conn, n int) {
	h.t.Helper()
	var got int
	h.must(conn.QueryRow(ctx, "SELECT $1::int + 1", n).Scan(&got))
	if got != n+1 {
		h.t.Fatalf("got %d, want %d", got, n+1)
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO stock VALUES ($1, 'transaction')", n); err != nil {
			return err
		}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"stock"}, []string{"n", "s"}, pgx.CopyFromRows([][]any{{n, "copy"}, {n + 1, "copy"}}))
		return err
	})
	h.must(err)
	var batch pgx.Batch
	for i := range 3 {
		batch.Queue("INSERT INTO stock VALUES ($1, 'batch')", n+i)
	}
	h.must(conn.SendBatch(ctx, &batch).Close())
	if err := conn.QueryRow(ctx, "SELECT 1 / ($1::int - $1::int)", n).Scan(&got); err == nil {
		h.t.Fatal("division by zero succeeded")
	}
}
