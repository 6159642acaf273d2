package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Idle is what a system keeps for each client that is connected and does nothing.
type Idle struct {
	System  string
	Clients int
	Bytes   int // of anonymous resident memory for each
}

// BenchIdle connects clients to each system, lets each run one query, and looks at what
// its process has grown by.
func BenchIdle(ctx context.Context, o BenchOptions, clients int) ([]Idle, error) {
	b := &bench{BenchOptions: o}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.end())
	}
	var all []Idle
	for _, s := range b.systems {
		idle, err := b.idle(ctx, s, clients)
		if err != nil {
			return all, errors.Join(fmt.Errorf("%s: %w", s.name, err), b.end())
		}
		b.Logf("%-10s %d idle clients: %d bytes each", s.name, clients, idle.Bytes)
		all = append(all, idle)
	}
	return all, b.end()
}

func (b *bench) idle(ctx context.Context, s system, clients int) (Idle, error) {
	// A first batch makes the process as large as it gets from work alone.
	warm, err := b.connectAll(ctx, s, 100)
	defer closeAll(ctx, warm)
	if err != nil {
		return Idle{}, err
	}
	before, err := anonymous(s.pid())
	if err != nil {
		return Idle{}, err
	}
	idle, err := b.connectAll(ctx, s, clients)
	defer closeAll(ctx, idle)
	if err != nil {
		return Idle{}, err
	}
	settled, err := b.settle(ctx, s)
	return Idle{System: s.name, Clients: clients, Bytes: (settled - before) / clients}, err
}

// looks is how often a process is looked at: what it gives back, it gives back late.
const looks = 6

// settle returns the least that the process has kept.
func (b *bench) settle(ctx context.Context, s system) (int, error) {
	least, err := anonymous(s.pid())
	for range looks {
		if err != nil || !sleep(ctx, 5*time.Second) {
			return least, errors.Join(err, ctx.Err())
		}
		var now int
		now, err = anonymous(s.pid())
		least = min(least, now)
	}
	return least, err
}

func (b *bench) connectAll(ctx context.Context, s system, count int) ([]*pgconn.PgConn, error) {
	vars := map[string]string{}
	for _, v := range s.env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	app, err := loadClient(vars["PGSSLCERT"], vars["PGSSLKEY"], vars["PGSSLROOTCERT"])
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(vars["PGPORT"])
	if err != nil {
		return nil, fmt.Errorf("PGPORT: %w", err)
	}
	var all []*pgconn.PgConn
	for range count {
		conn, err := app.connect(ctx, &node{name: s.name, port: port})
		if err != nil {
			return all, err
		}
		all = append(all, conn)
		if err := exec1(ctx, conn, "SELECT 1"); err != nil {
			return all, err
		}
	}
	return all, nil
}

func closeAll(ctx context.Context, all []*pgconn.PgConn) {
	for _, conn := range all {
		closeConn(ctx, conn)
	}
}

// anonymous is a process's resident memory that no file stands behind, in bytes.
func anonymous(pid int) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d tells no RssAnon", pid)
}
