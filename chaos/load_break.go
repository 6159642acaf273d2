package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// errBrokenOff is how a client calls its own end.
var errBrokenOff = errors.New("the client has broken off")

// moment waits a little, so that what follows happens at some time of what is under way.
func (l *loader) moment(ctx context.Context) {
	site.Sleep(ctx, time.Duration(l.random.Int64N(int64(5*time.Millisecond))))
}

// message is one of the protocol's.
func message(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(b, body...)
}

// send writes bytes past pgconn.
func (l *loader) send(b []byte) {
	l.conn.Conn().SetWriteDeadline(time.Now().Add(loadPatience))
	l.conn.Conn().Write(b)
}

func breakIdle(l *loader, ctx context.Context) { l.breakOff(ctx, "between two transactions") }

// breakQuery goes away while a query runs or its answer is on the way.
func breakQuery(l *loader, ctx context.Context) {
	sql := []string{"SELECT pg_sleep(0.05)\x00", "SELECT repeat('x', 1000) FROM generate_series(1, 100000)\x00"}[l.random.IntN(2)]
	l.send(message('Q', sql))
	l.moment(ctx)
	l.breakOff(ctx, "in a query")
}

// breakMessage goes away in the middle of a message, within its head or behind it.
func breakMessage(l *loader, ctx context.Context) {
	whole := message('Q', "SELECT 'half of it'\x00")
	l.send(whole[:1+l.random.IntN(len(whole)-1)])
	l.moment(ctx)
	l.breakOff(ctx, "in a message")
}

// breakCopy goes away before it has said that its data are complete.
func breakCopy(l *loader, ctx context.Context) {
	key := l.nonce()
	l.commit(ctx, key, func() (string, bool, error) {
		l.send(message('Q', "COPY ledger FROM STDIN\x00"))
		l.send(message('d', key+"\n"))
		l.moment(ctx)
		l.breakOff(ctx, "in a COPY")
		return "", false, errBrokenOff
	})
}

// breakBlock goes away before it has asked for a COMMIT.
func breakBlock(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		_, err := l.conn.Exec(ctx, "BEGIN;"+strings.Join(t.statements(), ";")).ReadAll()
		if err != nil {
			return "", false, err
		}
		l.moment(ctx)
		l.breakOff(ctx, "in a transaction")
		return "", false, errBrokenOff
	})
}

// breakCommit goes away when it has asked for a COMMIT and does not learn what became of
// it.
func breakCommit(l *loader, ctx context.Context) {
	t := l.transfer()
	l.commit(ctx, t.key, func() (string, bool, error) {
		_, err := l.conn.Exec(ctx, "BEGIN;"+strings.Join(t.statements(), ";")).ReadAll()
		if err != nil {
			return "", false, err
		}
		l.send(message('Q', "COMMIT\x00"))
		l.moment(ctx)
		l.breakOff(ctx, "after COMMIT")
		return "", true, errBrokenOff
	})
}
