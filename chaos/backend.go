package chaos

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
)

// committed returns every key in the ledger.
func committed(ctx context.Context, p *postgres) ([]string, error) {
	conn, err := p.admin(ctx, appDatabase)
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
var backendLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(\d+)\] LOG:  (connection authorized|disconnection): .*user=(\S+)`)

// readBackends reads from the server's log how long each backend of the pool's role lived.
func readBackends(p *postgres, at func(time.Time) time.Duration) ([]Event, error) {
	f, err := os.Open(p.logPath())
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
		if m == nil || m[4] != appRole {
			continue
		}
		when, err := time.Parse("2006-01-02 15:04:05.000", m[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.logPath(), err)
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
