package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/armordb/armordb/chaos/site"
)

// startServer starts a throw-away PostgreSQL in dir, with a ledger in it.
func startServer(ctx context.Context, dir string, options ...string) (*site.Postgres, error) {
	p, err := site.StartPostgres(ctx, dir, options...)
	if err != nil {
		return nil, err
	}
	if err := openLedger(ctx, p); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// openLedger makes the table that apps append to.
func openLedger(ctx context.Context, p *site.Postgres) error {
	conn, err := p.Admin(ctx, site.AppDatabase)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE TABLE ledger (key text NOT NULL); ALTER TABLE ledger OWNER TO "+site.AppRole); err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	return nil
}

// committed returns every key in the ledger.
func committed(ctx context.Context, p *site.Postgres) ([]string, error) {
	conn, err := p.Admin(ctx, site.AppDatabase)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT key FROM ledger")
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// backendLine matches what log_connections and log_disconnections write under our
// log_line_prefix.
var backendLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(\d+)\] LOG:  ` +
	`(connection authorized|disconnection): .*user=(\S+)`)

// readBackends reads from the server's log how long each backend of the pool's role lived.
func readBackends(p *site.Postgres, at func(time.Time) time.Duration) ([]Event, error) {
	f, err := os.Open(p.LogPath())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	alive := map[string]Event{}
	var all []Event
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxHistoryLine)
	for lines.Scan() {
		m := backendLine.FindStringSubmatch(lines.Text())
		if m == nil || m[4] != site.AppRole {
			continue
		}
		when, err := time.Parse("2006-01-02 15:04:05.000", m[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.LogPath(), err)
		}
		if m[3] == "connection authorized" {
			alive[m[2]] = Event{Kind: KindBackend, Subject: m[2], Start: at(when)}
			continue
		}
		e := alive[m[2]]
		e.Kind, e.Subject, e.End = KindBackend, m[2], at(when)
		delete(alive, m[2])
		all = append(all, e)
	}
	for _, e := range alive {
		all = append(all, e)
	}
	return all, lines.Err()
}
