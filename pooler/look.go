package pooler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
)

const (
	// lookOwner is who has a server connection that is looked with. No identity is called so.
	lookOwner = "armor: looks"
	// lookPatience is how long the login to one host may take that is looked at.
	lookPatience = 8 * time.Second
	// templateLook is the database from which a template's server is looked at: initdb makes it.
	templateLook = "postgres"
)

// Look asks PostgreSQL which backends of clients there are in the roles of a pool, whoever has
// them: on every host of its database. It borrows a server connection like any client and
// stays within that place, so that the budget holds. Only a node that has no share takes a place more: whoever asks
// has some withheld. An error means that there may be more than what is returned.
func (p *Pooler) Look(ctx context.Context, key string) ([]armor.HostBackends, error) {
	p.mu.Lock()
	pl := p.pools[key]
	p.mu.Unlock()
	if pl == nil {
		return nil, fmt.Errorf("%w: this node does not know the servers of pool %s", armor.ErrNotFound, key)
	}
	l := pl.newLook()
	if len(l.roles) == 0 || len(l.database.Hosts) == 0 {
		return nil, fmt.Errorf("%w: the database of pool %s has no host or no role", armor.ErrInvalid, key)
	}
	defer l.end()
	if err := l.borrow(ctx); err != nil {
		return nil, err
	}
	return l.all(ctx)
}

// look is one look at the hosts of a pool.
type look struct {
	pool     *pool
	database armor.Database
	roles    []string
	filter   string // the database whose backends count; empty: any
	shares   bool   // the node has a share of the pool
	server   *ServerConn
	ended    bool // server's connection was ended: its place goes on
	spoiled  bool // or it is in an unknown state
}

func (p *pool) newLook() *look {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &look{pool: p, database: p.database, filter: p.database.DBName, shares: p.limit > 0 && !p.retired}
	for _, r := range p.database.Roles {
		l.roles = append(l.roles, r.Role)
	}
	if l.filter == "" {
		l.database.DBName = templateLook
	}
	known := func(role string) bool { s := p.subs[l.part(role)]; return s != nil && s.known }
	slices.SortStableFunc(l.roles, func(a, b string) int { return rank(known(a)) - rank(known(b)) })
	return l
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// part is what a look in a role is lent from.
func (l *look) part(role string) part {
	if l.filter == "" {
		return part{role: role, dbname: templateLook}
	}
	return part{role: role}
}

// borrow takes a place. That no login works is no error: all says of each host why.
func (l *look) borrow(ctx context.Context) error {
	if !l.shares {
		return nil
	}
	by := &borrower{
		part: l.part(l.roles[0]), id: l.pool.node.nextID.Add(1), owner: lookOwner, application: "armor", isolation: armor.NoIsolation,
	}
	server, err := l.pool.await(ctx, by)
	if _, failed := errors.AsType[*backend.LoginError](err); failed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for a server connection to look with: %w", err)
	}
	if err := l.pool.takeFromClients(ctx, server, lookOwner); err != nil {
		return err
	}
	l.server = server
	return nil
}

// all looks at each host, first at the one that the borrowed connection leads to. A host that is
// dead is passed over, if another one answers: where none does it may be this node that is cut off.
func (l *look) all(ctx context.Context) (all []armor.HostBackends, err error) {
	hosts := slices.Clone(l.database.Hosts)
	if l.server != nil {
		own := l.server.wire.Host()
		slices.SortStableFunc(hosts, func(a, b string) int { return rank(a == own) - rank(b == own) })
	}
	var unheard, dead error
	for _, host := range slices.Compact(hosts) {
		pids, failed := l.at(ctx, host)
		switch is := l.pool.isDead(host, failed); {
		case failed == nil:
			all = append(all, armor.HostBackends{Host: host, PIDs: pids})
		case is:
			dead = errors.Join(dead, fmt.Errorf("%s: %w", host, failed))
		default:
			unheard = errors.Join(unheard, fmt.Errorf("%s: %w", host, failed))
		}
	}
	if len(all) == 0 {
		unheard = errors.Join(unheard, dead)
	}
	return all, unheard
}

func (l *look) at(ctx context.Context, host string) ([]uint32, error) {
	patience := l.pool.node.cfg.ResetTimeout
	if l.server != nil && !l.ended && l.server.wire.Host() == host {
		pids, err := l.server.wire.Seen(ctx, l.filter, l.roles, patience)
		l.spoiled = err != nil
		return pids, err
	}
	l.clear(ctx)
	c, err := l.login(ctx, host)
	if err != nil {
		return nil, err
	}
	defer c.End(ctx)
	return c.Seen(ctx, l.filter, l.roles, patience)
}

// clear ends the borrowed connection, whose place the next ones take.
func (l *look) clear(ctx context.Context) {
	if l.server != nil && !l.ended {
		l.server.wire.End(ctx)
		l.ended = true
	}
}

// login logs in to one host in the first role that is let in.
func (l *look) login(ctx context.Context, host string) (c *backend.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	t := backend.Target{Pool: l.pool.key, Database: l.database, Log: l.pool.node.cfg.Logger}
	t.Database.Hosts, t.Database.TargetSessionAttrs, t.Database.MaxLag = []string{host}, armor.AnySession, 0
	for _, role := range l.roles {
		var left *backend.Leftover
		t.Role = role
		if c, left, err = l.pool.node.servers.Open(ctx, t); err == nil {
			return c, nil
		}
		left.End(ctx)
		if backend.IsSilent(err) {
			break // another role finds nobody there either
		}
	}
	return nil, err
}

// end gives the borrowed connection back.
func (l *look) end() {
	switch {
	case l.server == nil:
	case l.ended, l.spoiled:
		l.server.Discard()
	default:
		l.server.Release(nil)
	}
}

// isDead reports whether nobody has answered at a host for as long as PostgreSQL needs to notice
// the end of a dead client. It must not withhold a share for ever.
func (p *pool) isDead(host string, failed error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !backend.IsSilent(failed) {
		delete(p.silent, host)
		return false
	}
	since, before := p.silent[host]
	if !before {
		p.silent[host] = time.Now()
	}
	return before && time.Since(since) >= p.node.cfg.VanishedFor
}
