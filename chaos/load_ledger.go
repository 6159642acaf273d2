package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// transfer moves an amount from one account to another. Its key tells all of that, so
// that the ledger's rows say what the balances must be.
type transfer struct {
	from, to string
	amount   int
	key      string
}

func parseTransfer(key string) (transfer, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return transfer{}, false
	}
	t := transfer{from: parts[1], to: parts[2], key: key}
	_, err := fmt.Sscanf(parts[3], "%d", &t.amount)
	return t, err == nil
}

// transfer returns a new one. The lower account comes first, so that none deadlock.
func (l *loader) transfer() transfer {
	from := l.random.IntN(loadAccounts - 1)
	to := from + 1 + l.random.IntN(loadAccounts-1-from)
	t := transfer{from: fmt.Sprint(from), to: fmt.Sprint(to), amount: l.random.IntN(200) - 100}
	t.key = fmt.Sprintf("%s/%s/%s/%d", l.nonce(), t.from, t.to, t.amount)
	return t
}

// statements are what a transfer consists of.
func (t transfer) statements() []string {
	return []string{
		fmt.Sprintf("INSERT INTO ledger VALUES ('%s')", t.key),
		fmt.Sprintf("UPDATE accounts SET balance = balance - %d WHERE id = %s", t.amount, t.from),
		fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %s", t.amount, t.to),
	}
}

// commit records how a transaction ended: how returns the tag with which PostgreSQL has
// answered its end, and whether that end was asked for at all.
func (l *loader) commit(ctx context.Context, key string, how func() (tag string, asked bool, err error)) {
	e := Event{Kind: KindCommit, Subject: key, Node: l.node.Name, Start: l.workload.history.Now()}
	tag, asked, err := how()
	e.End = l.workload.history.Now()
	switch {
	case err != nil:
		e.Outcome, e.SQLState, e.Detail = verdict(err)
		l.failed(ctx, e, err)
		if !asked {
			e.Outcome = Fail
		}
	case tag == "ROLLBACK":
		e.Outcome, e.Detail = Fail, tag
	default:
		e.Outcome = OK
	}
	l.workload.history.Add(e)
}

// failed records that a transaction's client was not served, unless it has broken off
// itself, and begins anew.
func (l *loader) failed(ctx context.Context, e Event, err error) {
	if errors.Is(err, errBrokenOff) {
		return
	}
	e.Kind = KindReply
	l.workload.history.Add(e)
	l.leave(ctx)
}

// transferInBlock is BEGIN, what there is to do, COMMIT, each of them an exchange.
func transferInBlock(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		for _, sql := range append([]string{"BEGIN"}, t.statements()...) {
			if _, err := l.conn.Exec(ctx, sql).ReadAll(); err != nil {
				return "", false, err
			}
		}
		tag, err := l.end(ctx, "COMMIT")
		return tag, true, err
	})
}

func (l *loader) end(ctx context.Context, sql string) (tag string, err error) {
	results, err := l.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	return results[0].CommandTag.String(), nil
}

// transferAtOnce is one simple query of several statements, which are one transaction.
func transferAtOnce(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		_, err := l.conn.Exec(ctx, strings.Join(t.statements(), ";")).ReadAll()
		return "", true, err
	})
}

// transferPipelined is a pipeline up to a Sync, which is one transaction.
func transferPipelined(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		batch := &pgconn.Batch{}
		for _, sql := range t.statements() {
			batch.ExecParams(sql, nil, nil, nil, nil)
		}
		_, err := l.conn.ExecBatch(ctx, batch).ReadAll()
		return "", true, err
	})
}

// copyIn copies one row that moves nothing.
func copyIn(l *loader, ctx context.Context) {
	key := l.nonce()
	l.commit(ctx, key, func() (string, bool, error) {
		_, err := l.conn.CopyFrom(ctx, strings.NewReader(key+"\n"), "COPY ledger FROM STDIN")
		return "", true, err
	})
}

// rollBack changes its mind.
func rollBack(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		_, err := l.conn.Exec(ctx, "BEGIN;"+strings.Join(t.statements(), ";")).ReadAll()
		if err != nil {
			return "", false, err
		}
		tag, err := l.end(ctx, "ROLLBACK")
		return tag, false, err
	})
}

var errNoFailure = errors.New("a statement that must fail did not")

// commitFailed commits a transaction that PostgreSQL has given up.
func commitFailed(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		if _, err := l.conn.Exec(ctx, "BEGIN;"+strings.Join(t.statements(), ";")).ReadAll(); err != nil {
			return "", false, err
		}
		if _, err := l.conn.Exec(ctx, "SELECT 1/0").ReadAll(); err == nil {
			return "", true, errNoFailure
		}
		tag, err := l.end(ctx, "COMMIT")
		return tag, true, err
	})
}
