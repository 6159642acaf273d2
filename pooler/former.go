package pooler

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
)

// A node that was killed leaves backends behind, and PostgreSQL keeps those whose clients have
// asked it to. They hold their places in the pool of the node's next life until PostgreSQL is
// seen to have them no more:
//
//	register ──▶ held back ──▶ cancelled ──▶ looked for ──▶ gone: the place is free
//	                                 ▲            │
//	                                 └── again ───┘

const (
	// firstLookAfter is when a pool that has no share here is looked for all the same.
	firstLookAfter = 10 * time.Second
	// lookForFormerEvery is the pause after the first look; it doubles.
	lookForFormerEvery = 500 * time.Millisecond
	longestPause       = 5 * time.Second
	// loginsEndWithin is when PostgreSQL has given up what had not logged in when the node
	// was killed: authentication_timeout, by default.
	loginsEndWithin = time.Minute
)

// holdBack takes the places of what former lives have left. It is called before anything else
// is asked of the pooler.
func (p *Pooler) holdBack(left []backend.Entry) {
	if mutant == RecordForgotten {
		return
	}
	for _, e := range left {
		pl, _ := p.findOrMake(e.Pool)
		pl.retired = true // until it is configured
		pl.open++
		pl.former[e.ID] = e
	}
}

// awaitFormer begins to look for what former lives have left.
func (p *Pooler) awaitFormer() {
	for _, pl := range p.allPools() {
		if n := len(pl.formerLeft()); n > 0 {
			pl.node.cfg.Logger.Warn("places are held back for server connections of a former life of this node",
				armor.KeyPool, pl.key, armor.KeyCount, n)
			pl.searching = true // nobody else is at work yet
			p.errands.add(pl.awaitFormer)
		}
	}
}

// awaitFormer looks until all are gone.
func (p *pool) awaitFormer(ctx context.Context) {
	began := time.Now()
	a := &aftermath{pool: p, began: began, blind: map[site]time.Time{}}
	for pause := lookForFormerEvery; p.searches(); pause = min(2*pause, longestPause) {
		a.round(ctx)
		wait(ctx, p.formerPause(began, pause))
		if ctx.Err() != nil {
			return
		}
	}
	p.node.cfg.Logger.Info("no place is held back any more for server connections that nobody has",
		armor.KeyPool, p.key, armor.KeyTook, time.Since(began))
}

// searches reports whether there is something left to look for.
func (p *pool) searches() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.searching = len(p.former) > 0
	return p.searching
}

// orphanLocked keeps the place of a connection that was reset, whose end nobody can read, until
// PostgreSQL is seen to have no backend for it.
func (p *pool) orphanLocked(c *ServerConn, e backend.Entry) (todo []func()) {
	delete(p.conns, c)
	p.closing--
	if e.ID == 0 { // nothing is written down
		e.ID = 1<<63 | c.id
	}
	p.former[e.ID] = e
	if !p.searching {
		p.searching = true
		todo = append(todo, func() { p.node.errands.add(p.awaitFormer) })
	}
	return append(todo, p.settleLocked()...)
}

// formerPause is how long to wait for the next look: hardly at all while the node waits for its
// share.
func (p *pool) formerPause(began time.Time, pause time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.former) == 0:
		return 0
	case p.limit == 0 && time.Since(began) < firstLookAfter:
		return lookForFormerEvery / 2
	}
	return pause
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// formerLeft are the backends of former lives that hold a place, in the order of their logins.
func (p *pool) formerLeft() []backend.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.former), func(a, b backend.Entry) int { return cmp.Compare(a.ID, b.ID) })
}

// site is where backends are looked for with one login.
type site struct{ host, dbname, role string }

// aftermath is the search for what a former life has left in one pool.
type aftermath struct {
	*pool
	began time.Time
	blind map[site]time.Time // since when nobody could look there
}

// round cancels what runs and looks once at each site.
func (a *aftermath) round(ctx context.Context) {
	sites := map[site][]backend.Entry{}
	for _, e := range a.formerLeft() {
		if e.PID == 0 {
			if time.Since(a.began) >= loginsEndWithin {
				a.free([]backend.Entry{e})
			}
			continue
		}
		at := site{e.Host, e.Database, e.Role}
		sites[at] = append(sites[at], e)
	}
	for at, all := range sites {
		a.stop(ctx, all)
		if done, may := a.placeToLook(); may {
			a.look(ctx, at, all)
			done()
		}
	}
}

// stop cancels what the backends run. The first that fails ends it: the host does not answer.
func (a *aftermath) stop(ctx context.Context, all []backend.Entry) {
	for _, e := range all {
		if err := a.node.servers.StopFormer(ctx, a.target(e).Database, e); err != nil {
			a.node.cfg.Logger.Debug("cancel request for a former life's server connection failed", armor.KeyPool, a.key, armor.KeyErr, err)
			return
		}
	}
}

// target is the login that looks for an entry.
func (p *pool) target(e backend.Entry) backend.Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := backend.Target{Pool: p.key, Database: p.database, Role: e.Role, Log: p.node.cfg.Logger}
	t.Database.DBName = e.Database
	return t
}

// placeToLook takes a place for a look, if there may be one. When all that the node may have is
// held back, the look takes one of those places: they were all asked to end, and PostgreSQL
// has one too many for that moment only if every single one has not.
func (p *pool) placeToLook() (done func(), may bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.limit == 0 && time.Since(p.made) < firstLookAfter:
		return nil, false // a share may come yet
	case p.open < p.limit:
		p.open++
		return func() {
			p.locked(func() []func() {
				p.freeLocked(1)
				return p.settleLocked()
			})
		}, true
	case p.open-len(p.former) < max(p.limit, 1):
		return func() {}, true
	}
	return nil, false
}

// look frees the places of those that are gone, and of all, if nobody could look there for as
// long as PostgreSQL needs to notice the end of a dead client.
func (a *aftermath) look(ctx context.Context, at site, all []backend.Entry) {
	gone, err := a.node.servers.Gone(ctx, a.target(all[0]), all)
	switch {
	case mutant == LookSkipped:
		gone = all
	case err == nil || backend.IsCrowded(err):
		delete(a.blind, at)
	case a.blind[at].IsZero():
		a.blind[at] = time.Now()
	case time.Since(a.blind[at]) >= a.node.cfg.VanishedFor:
		a.node.cfg.Logger.Warn("nobody can look for server connections of a former life: they count as ended",
			armor.KeyPool, a.key, armor.KeyAddress, at.host, armor.KeyRole, at.role, armor.KeyCount, len(all), armor.KeyErr, err)
		gone = all
	}
	a.free(gone)
}

// free gives the places of backends that are gone back.
func (p *pool) free(gone []backend.Entry) {
	for _, e := range gone {
		p.node.cfg.Register.Strike(e.ID)
	}
	p.locked(func() []func() {
		for _, e := range gone {
			delete(p.former, e.ID)
		}
		p.freeLocked(len(gone))
		return p.settleLocked()
	})
}
