package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// askLag asks a standby for what a look holds. It is answered to a role without privileges,
// which sees of a WAL receiver that there is one and not its status. A receiver that is never
// given up (wal_receiver_timeout 0) says nothing of whether its primary is there. Names are of
// pg_catalog only, so that no search_path leads elsewhere (PostgreSQL, "Recovery Information
// Functions", "pg_stat_wal_receiver").
const askLag = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver" +
	" WHERE status IS NULL OR status OPERATOR(pg_catalog.=) 'streaming')" +
	" AND pg_catalog.current_setting('wal_receiver_timeout') OPERATOR(pg_catalog.<>) '0', " +
	"pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::int8, " +
	"pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::int8, " +
	"(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp())" +
	" OPERATOR(pg_catalog.*) 1000000)::int8"

// lookAgainAfter is how long a standby that streams and seems too far behind is given to replay
// what it has received by then. The age of its last transaction is no measure for one whose
// primary has written the first thing for an hour just now, or writes one long transaction.
const lookAgainAfter = 50 * time.Millisecond

// look is what a standby says of itself at one moment. -1 is what it does not know.
type look struct {
	streams            bool          // from its primary, as far as anybody knows
	received, replayed int64         // how far in the write-ahead log
	age                time.Duration // of the last transaction that it has replayed
}

// lag is how far the standby is behind its primary at most, and whether that is known. The age
// of its last transaction grows while the primary has nothing to write, and means nothing where
// all that the primary has sent is replayed; but one that was cut off has replayed all, too.
func (l look) lag() (lag time.Duration, known bool) {
	switch {
	case l.streams && l.received >= 0 && l.received == l.replayed:
		return 0, true
	case l.age < 0:
		return 0, false
	}
	return l.age, true
}

// lagSince is lag of a later look: what had been received by the first, which was begun so long
// ago, may be replayed by now. One that has replayed more than it has received has just begun
// to stream, and says nothing.
func (l look) lagSince(first look, ago time.Duration) (lag time.Duration, known bool) {
	lag, known = l.lag()
	caughtUp := l.streams && first.streams && first.received >= max(first.replayed, 0) && l.replayed >= first.received
	if caughtUp && (!known || ago < lag) {
		return ago, true
	}
	return lag, known
}

// lookOf reads the answer to askLag.
func lookOf(rows [][]string) (look, error) {
	if len(rows) != 1 || len(rows[0]) != 4 {
		return look{}, fmt.Errorf("%w: answer of %d rows to how far a standby is behind", armor.ErrInvalid, len(rows))
	}
	var numbers [3]int64
	for i, text := range rows[0][1:] {
		if numbers[i] = -1; text == "" { // NULL
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return look{}, fmt.Errorf("%w: %q in the answer to how far a standby is behind", armor.ErrInvalid, text)
		}
		numbers[i] = max(n, 0) // a clock may be behind the primary's
	}
	l := look{streams: rows[0][0] == "t", received: numbers[0], replayed: numbers[1], age: -1}
	if numbers[2] >= 0 {
		l.age = time.Duration(numbers[2]) * time.Microsecond
	}
	return l, nil
}

// tooFar says that a standby is further behind its primary than the database allows, or that
// there is no knowing.
type tooFar struct {
	host string
	lag  time.Duration
	most time.Duration
	why  error // there is no knowing; nil: there is
}

var errNoLag = errors.New("it has replayed no transaction and does not stream from a primary")

// Error says how far.
func (e *tooFar) Error() string {
	if e.why != nil {
		return fmt.Sprintf("how far the standby is behind its primary cannot be known: %v", e.why)
	}
	return fmt.Sprintf("the standby is %s behind its primary, more than %s", e.by(), e.most)
}

// Unwrap makes it a misfit.
func (e *tooFar) Unwrap() error { return errMisfit }

func (e *tooFar) by() string {
	if e.why != nil {
		return "a time that cannot be known"
	}
	return e.lag.Round(time.Millisecond).String()
}

// isFresh judges a standby that has just let us in by how far it is behind, where that counts.
// A physical replication connection cannot ask, and is not for reading.
func (a attempt) isFresh(ctx context.Context, c *Conn) error {
	most := a.target.Database.MaxLag
	if most == 0 || a.want != armor.Standby || a.target.Parameters["replication"] == "true" {
		return nil
	}
	began := time.Now()
	first, err := c.look(ctx)
	if err != nil {
		return a.unknown(err)
	}
	lag, known := first.lag()
	if (!known || lag > most) && first.streams {
		sleep(ctx, lookAgainAfter)
		second, err := c.look(ctx)
		if err != nil {
			return a.unknown(err)
		}
		lag, known = second.lagSince(first, time.Since(began))
	}
	switch {
	case !known:
		return a.unknown(errNoLag)
	case lag > most:
		return &tooFar{host: a.host, lag: lag, most: most}
	}
	return nil
}

// unknown counts as too far behind.
func (a attempt) unknown(why error) error {
	return &tooFar{host: a.host, most: a.target.Database.MaxLag, why: why}
}

// look asks the standby.
func (c *Conn) look(ctx context.Context) (look, error) {
	x := core.Exchange{Keep: 1}
	if err := c.Ask(ctx, pgwire.AppendQuery(nil, askLag), &x, c.home.cfg.ResetTimeout); err != nil {
		return look{}, err
	}
	if x.Err != nil {
		return look{}, x.Err
	}
	return lookOf(x.Rows)
}

// whoIsBehind names the standbys that are too far behind by their places in the list of hosts:
// a client does not learn their addresses.
func whoIsBehind(d armor.Database, causes []error) string {
	var all []string
	for _, cause := range causes {
		if far, ok := errors.AsType[*tooFar](cause); ok {
			all = append(all, fmt.Sprintf("host %d of %d by %s", slices.Index(d.Hosts, far.host)+1, len(d.Hosts), far.by()))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf(" Behind by more than maxLag (%s): %s.", d.MaxLag, strings.Join(all, ", "))
}
