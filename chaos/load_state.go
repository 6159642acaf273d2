package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// lookQuery names everything in a session that the client has not asked for itself. Its
// parameters are the client's name and tenant.
const lookQuery = `SELECT concat_ws(', ',
 'owner ' || nullif(current_setting('chaos.owner', true), ''),
 'role ' || nullif(current_user::text, 'app'),
 'search_path ' || nullif(current_setting('search_path'), '"$user", public'),
 'work_mem ' || nullif(current_setting('work_mem'), '4MB'),
 'application_name ' || nullif(current_setting('application_name'), '%[1]s'),
 'tenant ' || nullif(coalesce(current_setting('chaos.tenant', true), ''), '%[2]s'),
 (SELECT 'listens to ' || string_agg(c, ' ') FROM pg_listening_channels() c),
 (SELECT 'tables ' || string_agg(relname, ' ') FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
 (SELECT 'advisory locks ' || string_agg(objid::text, ' ') FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
 (SELECT 'prepared ' || string_agg(name, ' ') FROM pg_prepared_statements WHERE from_sql),
 (SELECT 'cursors ' || string_agg(name, ' ') FROM pg_cursors WHERE is_holdable))`

// look records what of others is in the session.
func look(l *loader, ctx context.Context) {
	nonce := l.nonce()
	l.record(KindReply, nonce, func(string) (string, error) {
		foreign, err := l.text(ctx, fmt.Sprintf(lookQuery, l.name, l.tenant))
		if err == nil {
			l.state(foreign)
		}
		return nonce, err
	})
}

// stains are what clients leave behind in their sessions. NAME is the client's,
// NUMBER one that nobody else has.
var stains = []string{
	"SET chaos.owner = 'NAME'",
	"SELECT set_config('chaos.owner', 'NAME', false)",
	"SET ROLE other",
	"SET search_path = pg_temp",
	"SET work_mem = '64kB'",
	"CREATE TEMPORARY TABLE of_NAME (x int)",
	"SELECT 1 AS x INTO TEMP of_NAME",
	"LISTEN of_NAME",
	"LISTEN everybody",
	"SELECT pg_advisory_lock(NUMBER)",
	"SELECT pg_try_advisory_lock(NUMBER)",
	"PREPARE of_NAME AS SELECT 'NAME'",
	"DECLARE of_NAME CURSOR WITH HOLD FOR SELECT 'NAME'",
}

// stain leaves something behind, by a simple query or by an extended one. The client leaves,
// too, since it would only meet itself: also in transaction mode, which keeps its state for it.
// Where too many keep a server connection for theirs it is refused, and that is an answer.
func stain(l *loader, ctx context.Context) {
	number := strings.NewReplacer("c", "", "-", "").Replace(l.nonce())
	sql := strings.NewReplacer("NAME", l.name, "NUMBER", number).Replace(stains[l.random.IntN(len(stains))])
	l.listens = true // until it has ended
	l.ask(func(nonce string) (string, error) {
		var err error
		if l.random.IntN(2) == 0 {
			_, err = l.text(ctx, sql)
		} else {
			_, err = readText(l.conn.ExecParams(ctx, sql, nil, nil, nil, nil))
		}
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == tooManyPins {
			err = nil
		}
		return nonce, err
	})
	l.listens = false
	l.leave(ctx)
}

// tooManyPins is the SQLSTATE of a command after which one client more would keep a server
// connection than the pool allows.
const tooManyPins = "53300"

func notify(l *loader, ctx context.Context) {
	l.ask(func(nonce string) (string, error) {
		_, err := l.text(ctx, "NOTIFY everybody, '"+nonce+"'")
		return nonce, err
	})
}
