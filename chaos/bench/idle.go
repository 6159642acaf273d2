package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// Idle is what a system keeps for each client that is connected and does nothing.
type Idle struct {
	System  string
	Clients int
	Bytes   int // of anonymous resident memory for each
}

// MeasureIdle connects clients to each system, lets each run one query, and looks at what
// its process has grown by. What fails is a gap, as in Run.
func MeasureIdle(ctx context.Context, o Options, clients int) ([]Idle, []Gap, error) {
	b := &comparison{Options: o}
	if err := b.prepare(ctx); err != nil {
		return nil, b.results.Gaps, errors.Join(err, b.end())
	}
	var all []Idle
	for _, s := range b.systems {
		if s.pid == nil || s.fits != nil && !s.fits(Cell{idle: clients}) {
			continue
		}
		idle, err := b.idle(ctx, s, clients)
		if err != nil {
			b.gap(Gap{System: s.name, Cell: "idle", Err: err})
			continue
		}
		b.Logf("%-10s %d idle clients: %d bytes each", s.name, clients, idle.Bytes)
		all = append(all, idle)
	}
	return all, b.results.Gaps, errors.Join(ctx.Err(), b.end())
}

func (b *comparison) idle(ctx context.Context, s system, clients int) (Idle, error) {
	// A first batch makes the process as large as it gets from work alone.
	warm, err := b.connectAll(ctx, s, 100)
	defer closeAll(ctx, warm)
	if err != nil {
		return Idle{}, err
	}
	before, err := site.AnonymousMemory(s.pid())
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
func (b *comparison) settle(ctx context.Context, s system) (int, error) {
	least, err := site.AnonymousMemory(s.pid())
	for range looks {
		if err != nil || !site.Sleep(ctx, 5*time.Second) {
			return least, errors.Join(err, ctx.Err())
		}
		var now int
		now, err = site.AnonymousMemory(s.pid())
		least = min(least, now)
	}
	return least, err
}

func (b *comparison) connectAll(ctx context.Context, s system, count int) ([]*pgconn.PgConn, error) {
	vars := map[string]string{}
	for _, v := range s.env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	app, err := site.LoadClient(vars["PGSSLCERT"], vars["PGSSLKEY"], vars["PGSSLROOTCERT"])
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(vars["PGPORT"])
	if err != nil {
		return nil, fmt.Errorf("PGPORT: %w", err)
	}
	var all []*pgconn.PgConn
	for range count {
		conn, err := app.Connect(ctx, &site.Node{Name: s.name, Port: port})
		if err != nil {
			return all, err
		}
		all = append(all, conn)
		if err := site.Exec(ctx, conn, "SELECT 1"); err != nil {
			return all, err
		}
	}
	return all, nil
}

func closeAll(ctx context.Context, all []*pgconn.PgConn) {
	for _, conn := range all {
		site.CloseConn(ctx, conn)
	}
}
