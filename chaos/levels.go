package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jackc/pgx/v5"

	"github.com/armordb/armordb/chaos/site"
)

// levels are counts that come back to where they were when all clients are gone.
type levels map[string]int

// levelSlack is by how much goroutines and descriptors may differ: connections between
// nodes, and what a scrape itself takes.
const levelSlack = 20

// nodeLevels reads a node's metrics. Descriptors do not count those of server connections,
// which stay open on purpose.
func nodeLevels(ctx context.Context, n *site.Node) (levels, error) {
	m, err := scrape(ctx, n)
	if err != nil {
		return nil, err
	}
	return levels{
		"goroutines":              int(m["go_goroutines"]),
		"descriptors":             int(m["process_open_fds"] - m["armor_pool_open"]),
		"sessions":                int(m["armor_sessions"]),
		"waiting clients":         int(m["armor_pool_waiting"]),
		"lent server connections": int(m["armor_pool_open"] - m["armor_pool_idle"]),
		"panics":                  int(m["armor_session_panics_total"]),
	}, nil
}

// scrape returns a node's metrics, summed over their labels.
func scrape(ctx context.Context, n *site.Node) (map[string]float64, error) {
	address, err := opsAddress(n)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	request.Close = true // a connection that is kept would count itself
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", n.Name, err)
	}
	defer response.Body.Close()
	return sumMetrics(response.Body)
}

// sumMetrics reads Prometheus' text format.
func sumMetrics(r io.Reader) (map[string]float64, error) {
	sums := map[string]float64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		series, text, ok := cutLast(lines.Text(), " ")
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", series, err)
		}
		name, _, _ := strings.Cut(series, "{")
		sums[name] += value
	}
	return sums, lines.Err()
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func opsAddress(n *site.Node) (string, error) {
	path := filepath.Join(n.Dir, "armord.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var config struct {
		Ops struct {
			Listen string `yaml:"listen"`
		} `yaml:"ops"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return config.Ops.Listen, nil
}

// serverLevels looks at what the pool's role has left in PostgreSQL.
func serverLevels(ctx context.Context, p *site.Postgres) (levels, error) {
	conn, err := p.Admin(ctx, site.AppDatabase)
	if err != nil {
		return nil, fmt.Errorf("look at what is left: %w", err)
	}
	defer conn.Close(ctx)
	all := levels{}
	for name, sql := range map[string]string{
		"busy backends":    "SELECT count(*) FROM pg_stat_activity WHERE usename = '" + site.AppRole + "' AND state <> 'idle'",
		"advisory locks":   "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
		"temporary tables": "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
	} {
		row, err := conn.Query(ctx, sql)
		if err != nil {
			return nil, fmt.Errorf("look at what is left: %w", err)
		}
		if all[name], err = pgx.CollectExactlyOneRow(row, pgx.RowTo[int]); err != nil {
			return nil, fmt.Errorf("look at what is left: %w", err)
		}
	}
	return all, nil
}

// highest looks a few times and keeps the highest of each count.
func highest(ctx context.Context, n *site.Node) (levels, error) {
	all := levels{}
	for range 5 {
		now, err := nodeLevels(ctx, n)
		if err != nil {
			return nil, err
		}
		for name, count := range now {
			all[name] = max(all[name], count)
		}
		site.Sleep(ctx, 100*time.Millisecond)
	}
	return all, nil
}

// levelsFor is how long counts may take to come back.
const levelsFor = 15 * time.Second

// comeBack waits until no count is above what is allowed, and records what it came to.
func (w *workload) comeBack(ctx context.Context, name string, allowed levels, look func(context.Context) (levels, error)) error {
	var now levels
	for end := time.Now().Add(levelsFor); ; site.Sleep(ctx, 200*time.Millisecond) {
		var err error
		if now, err = look(ctx); err != nil {
			return err
		}
		if now.within(allowed) || time.Now().After(end) || ctx.Err() != nil {
			break
		}
	}
	for what, count := range now {
		w.history.Add(Event{Kind: KindLevel, Subject: what, Node: name, Start: w.history.Now(), Found: count, Allowed: allowed[what]})
	}
	return ctx.Err()
}

func (l levels) within(allowed levels) bool {
	for name, count := range l {
		if count > allowed[name] {
			return false
		}
	}
	return true
}
