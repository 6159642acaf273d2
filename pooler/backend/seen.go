package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// maxSeen bounds the backends that one look takes in.
const maxSeen = 100_000

// Host is the one that the connection leads to, as the database names it.
func (c *Conn) Host() string { return c.entry.Host }

// Seen asks which backends of clients there are on the server in any of the roles, but for the
// connection's own: in the database dbname, or in any if it is empty. A replicating client is in none.
func (c *Conn) Seen(ctx context.Context, dbname string, roles []string, patience time.Duration) ([]uint32, error) {
	ask := pgwire.AppendQueryWith(nil, askSeen, textArray(append([]string{dbname}, roles...)))
	pids, _, err := c.askBackends(ctx, ask, maxSeen, 1, patience)
	if err != nil {
		return nil, fmt.Errorf("ask PostgreSQL which backends it has: %w", err)
	}
	return pids, nil
}

// askBackends sends a query whose rows begin with a backend's pid, and returns the rows and their
// pids. It is an error when there are more than most, or of other columns.
func (c *Conn) askBackends(ctx context.Context, ask []byte, most, columns int, patience time.Duration) (pids []uint32, rows [][]string, err error) {
	x := core.Exchange{Keep: most}
	if err := c.Ask(ctx, ask, &x, patience); err != nil {
		c.busy = true
		return nil, nil, err
	}
	switch {
	case x.Err != nil:
		return nil, nil, x.Err
	case x.Seen > len(x.Rows):
		return nil, nil, fmt.Errorf("%w: PostgreSQL has more than %d backends", armor.ErrExhausted, most)
	}
	for _, row := range x.Rows {
		if len(row) != columns {
			return nil, nil, fmt.Errorf("%w: %q in the answer to which backends there are", armor.ErrInvalid, row)
		}
		pid, err := strconv.ParseUint(row[0], 10, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %q in the answer to which backends there are", armor.ErrInvalid, row)
		}
		pids = append(pids, uint32(pid))
	}
	return pids, x.Rows, nil
}

// askSeen has the database and the roles in one array. Who a backend is everybody may see; of which kind it is
// only of one's own role: a parallel worker of another role counts for as long as it is there. Names are of pg_catalog
// only, so that no search_path leads elsewhere (PostgreSQL, "pg_stat_activity").
const askSeen = "SELECT pid FROM pg_catalog.pg_stat_activity, (SELECT $1::pg_catalog.text[] AS a) AS wanted " +
	"WHERE usename::pg_catalog.text OPERATOR(pg_catalog.=) ANY (a[2:]) AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() " +
	"AND (a[1] OPERATOR(pg_catalog.=) '' OR datname IS NULL OR datname::pg_catalog.text OPERATOR(pg_catalog.=) a[1]) " +
	"AND (backend_type IS NULL OR backend_type::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{client backend,walsender}'::pg_catalog.text[])) " +
	"ORDER BY pid"

// textArray is an array of PostgreSQL's type text[] (PostgreSQL, "Array Value Input").
func textArray(all []string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	for i, s := range all {
		b.WriteString(map[bool]string{true: `{"`, false: `,"`}[i == 0])
		b.WriteString(quote.Replace(s))
		b.WriteByte('"')
	}
	return b.String() + "}"
}

// IsSilent reports whether a login has failed since nobody answered there: neither did
// PostgreSQL refuse it, nor is it this node that lacks something.
func IsSilent(err error) bool {
	failed, ok := errors.AsType[*LoginError](err)
	return ok && failed.Reason != armor.ReasonNotReady && Refusal(err) == nil
}
