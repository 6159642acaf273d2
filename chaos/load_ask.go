package chaos

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// text runs simple queries and returns the first column of every row, joined.
func (l *loader) text(ctx context.Context, sql string) (string, error) {
	results, err := l.conn.Exec(ctx, sql).ReadAll()
	var all []string
	for _, r := range results {
		all = append(all, firstColumn(r.Rows)...)
	}
	return strings.Join(all, " "), err
}

func firstColumn(rows [][][]byte) []string {
	var all []string
	for _, row := range rows {
		all = append(all, string(row[0]))
	}
	return all
}

func askSimple(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) { return l.text(ctx, "SELECT '"+nonce+"'") })
}

func askWithParameter(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		return readText(l.conn.ExecParams(ctx, "SELECT $1::text", [][]byte{[]byte(nonce)}, nil, nil, nil))
	})
}

func readText(r *pgconn.ResultReader) (string, error) {
	result := r.Read()
	return strings.Join(firstColumn(result.Rows), " "), result.Err
}

// askPrepared uses a statement whose name is the same for all clients, and whose text is
// not.
func askPrepared(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		if !l.prepared {
			if _, err := l.conn.Prepare(ctx, "mine", "SELECT '"+l.name+"-' || $1::text", nil); err != nil {
				return "", err
			}
			l.prepared = true
		}
		_, number, _ := strings.Cut(nonce, "-")
		return readText(l.conn.ExecPrepared(ctx, "mine", [][]byte{[]byte(number)}, nil, nil))
	})
}

// askPipelined sends several requests, with and without a Sync in between, before it
// reads the first answer.
func askPipelined(l *loader, ctx context.Context) {
	count := 2 + l.random.IntN(6)
	l.ask(func(nonce string) (string, error) {
		pipeline := l.conn.StartPipeline(ctx)
		for i := range count {
			pipeline.SendQueryParams("SELECT $1::text || '/' || $2", [][]byte{[]byte(nonce), []byte(strconv.Itoa(i))}, []uint32{25, 25}, nil, nil)
			if l.random.IntN(2) == 0 || i == count-1 {
				pipeline.SendPipelineSync()
			}
		}
		err := pipeline.Flush()
		for i := 0; i < count && err == nil; {
			var result any
			result, err = pipeline.GetResults()
			if r, ok := result.(*pgconn.ResultReader); ok && err == nil {
				var got string
				if got, err = readText(r); err == nil && got != fmt.Sprintf("%s/%d", nonce, i) {
					nonce = got
				}
				i++
			}
		}
		return nonce, errors.Join(err, pipeline.Close())
	})
}

func askSeveral(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		got, err := l.text(ctx, fmt.Sprintf("SELECT '%[1]s'; SELECT '%[1]s'; SELECT '%[1]s'", nonce))
		return onlyOne(strings.Fields(got), 3), err
	})
}

// onlyOne returns the word that all of count words are, or what there is instead.
func onlyOne(words []string, count int) string {
	if distinct := slices.Compact(slices.Clone(words)); len(words) == count && len(distinct) == 1 {
		return distinct[0]
	}
	return fmt.Sprintf("%d words from %s", len(words), strings.Join(words[:min(len(words), 3)], " "))
}

func askCopy(l *loader, ctx context.Context) {
	count := 1 + l.random.IntN(3000)
	l.ask(func(nonce string) (string, error) {
		var out bytes.Buffer
		_, err := l.conn.CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT '%s' FROM generate_series(1, %d)) TO STDOUT", nonce, count))
		return onlyOne(strings.Fields(out.String()), count), err
	})
}

// askLarge has an answer of many messages, some of them larger than any buffer.
func askLarge(l *loader, ctx context.Context) {
	count := 1 + l.random.IntN(10_000)
	l.ask(func(nonce string) (string, error) {
		got, err := l.text(ctx, fmt.Sprintf("SELECT repeat('%s ', %d) FROM generate_series(1, 3)", nonce, count))
		return onlyOne(strings.Fields(got), 3*count), err
	})
}

// askSum sees that no transaction is visible by half.
func askSum(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		return l.text(ctx, "SELECT '"+nonce+"' || CASE sum(balance) WHEN 0 THEN '' ELSE ' with a sum of ' || sum(balance) END FROM accounts")
	})
}

// askFailing is answered by an error that names it.
func askFailing(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		sql, refusal := fmt.Sprintf(`SELECT '%s'::int`, nonce), (*pgconn.PgError)(nil)
		var err error
		if l.random.IntN(2) == 0 {
			_, err = l.text(ctx, sql)
		} else {
			_, err = readText(l.conn.ExecParams(ctx, sql, nil, nil, nil, nil))
		}
		if !errors.As(err, &refusal) || refusal.Code != "22P02" {
			return "no error of its own", err
		}
		_, quoted, _ := strings.Cut(refusal.Message, `"`)
		return strings.TrimSuffix(quoted, `"`), nil
	})
}

// askAndCancel cancels a query at some time before, while or after it runs.
func askAndCancel(l *loader, ctx context.Context) {
	after := time.Duration(l.random.Int64N(int64(60 * time.Millisecond)))
	anyNode := l.workload.cluster.Nodes[l.random.IntN(len(l.workload.cluster.Nodes))]
	byDriver, conn := l.random.IntN(2) == 0, l.conn
	cancelled := make(chan error, 1)
	go func() {
		site.Sleep(ctx, after)
		if byDriver {
			cancelled <- conn.CancelRequest(ctx)
			return
		}
		cancelled <- cancelAt(ctx, anyNode, conn)
	}()
	sleeps := func(nonce string) (string, error) { return l.text(ctx, "SELECT '"+nonce+"' FROM pg_sleep(0.05)") }
	l.record(KindCancel, l.nonce(), sleeps)
	if err := <-cancelled; err != nil {
		l.workload.logf("%s: cancel: %v", l.name, err)
	}
	if l.mode == inSession { // as with PostgreSQL, a signal that came late may hit the next query
		l.record(KindCancel, l.nonce(), sleeps)
	}
}

// cancelAt sends a cancel request without TLS to any node, and waits until it was dealt
// with.
func cancelAt(ctx context.Context, n *site.Node, conn *pgconn.PgConn) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(loadPatience))
	key := conn.SecretKey()
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102)
	packet = binary.BigEndian.AppendUint32(packet, conn.PID())
	if _, err := c.Write(append(packet, key...)); err != nil {
		return err
	}
	c.Read(packet) // its end says that it was delivered
	return nil
}
