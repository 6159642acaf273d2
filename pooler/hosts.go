package pooler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

// try is one host that a login may go to, and what it must be.
type try struct {
	host string
	want armor.SessionAttrs
}

// tries are the hosts of a database in the order in which a login tries them, as libpq
// does, but for first: the host that qualified the last time, so that a pool that wants
// the primary does not ask every standby before it at each login.
func tries(d armor.Database, first string) []try {
	hosts := slices.Clone(d.Hosts)
	if d.LoadBalanceHosts == armor.RandomHost {
		rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	} else if i := slices.Index(hosts, first); i > 0 {
		hosts = slices.Insert(slices.Delete(hosts, i, i+1), 0, first)
	}
	if d.TargetSessionAttrs == armor.PreferStandby {
		return append(wanting(hosts, armor.Standby), wanting(hosts, armor.AnySession)...)
	}
	return wanting(hosts, d.TargetSessionAttrs)
}

func wanting(hosts []string, want armor.SessionAttrs) (all []try) {
	for _, h := range hosts {
		all = append(all, try{h, want})
	}
	return all
}

// remembers reports whether logins begin with the host that qualified the last time.
// Where any does, or a better one may come back, the order is the operator's.
func remembers(d armor.Database) bool {
	return d.LoadBalanceHosts == armor.InOrder && d.TargetSessionAttrs != armor.AnySession && d.TargetSessionAttrs != armor.PreferStandby
}

// leastPerHost is how long a login waits for one of several hosts at least.
const leastPerHost = 3 * time.Second

// perHost is how long a login waits for one host: one that does not answer at all must
// not take the time of the others.
func perHost(whole time.Duration, hosts int) time.Duration {
	return min(whole, max(whole/time.Duration(hosts), leastPerHost))
}

// open logs in to the first host that lets it and is what it must be. When it fails,
// failed is the last connection that was made, if any, whose end has not been read.
func (p *Pooler) open(ctx context.Context, t target) (c *ServerConn, failed *dialed, err error) {
	auth, ok := t.database.Auth(t.role)
	if !ok {
		return nil, nil, notReady(fmt.Errorf("%w: no credential for role %s", armor.ErrNotFound, t.role))
	}
	if len(t.database.Hosts) == 0 {
		return nil, nil, notReady(fmt.Errorf("%w: database %s has no hosts", armor.ErrInvalid, t.database.Name))
	}
	var causes []error
	for _, try := range tries(t.database, t.first) {
		if failed.isOpen() && !p.endAttempt(failed.Conn) {
			break // its place is still taken
		}
		a := attempt{home: p, target: t, try: try, auth: auth}
		if c, failed, err = a.within(ctx, perHost(p.cfg.LoginTimeout, len(t.database.Hosts))); err == nil {
			return c, nil, nil
		}
		causes = append(causes, err)
	}
	return nil, failed, noHost(t.database, causes)
}

func (a attempt) within(ctx context.Context, patience time.Duration) (*ServerConn, *dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, failed, err := a.logIn(ctx)
	if err != nil {
		return nil, failed, a.explained(err)
	}
	if err := qualifies(c.state.Params(), a.want); err != nil {
		c.sayGoodbye()
		return nil, &dialed{Conn: c.raw}, fmt.Errorf("%s: %w", a.host, err)
	}
	c.host = a.host
	return c, nil, nil
}

// errMisfit says that a host is not what the database's sessions are to have.
var errMisfit = errors.New("not what target session attributes ask for")

// qualifies judges a server by what it reports at login, as libpq does since
// PostgreSQL 14, and asks it nothing.
func qualifies(params *core.Params, want armor.SessionAttrs) error {
	if want == armor.AnySession {
		return nil
	}
	standby, known := params.Get("in_hot_standby")
	if !known {
		return notReady(fmt.Errorf("%w: the server does not report in_hot_standby: target session attributes need PostgreSQL 14 or later", armor.ErrInvalid))
	}
	byDefault, _ := params.Get("default_transaction_read_only")
	isStandby, readOnly := standby == "on", standby == "on" || byDefault == "on"
	fits := map[armor.SessionAttrs]bool{
		armor.ReadWrite: !readOnly, armor.ReadOnly: readOnly, armor.Primary: !isStandby, armor.Standby: isStandby,
	}
	if !fits[want] {
		return fmt.Errorf("%w: the server is not %s", errMisfit, want)
	}
	return nil
}

// noHost is why no host would do. It is worth waiting when one of several kinds of
// hosts is wanted and some are gone, starting, or not what they will be: a standby is
// about to be promoted, most likely.
func noHost(d armor.Database, causes []error) error {
	last := causes[len(causes)-1]
	if d.TargetSessionAttrs == armor.AnySession || !slices.ContainsFunc(causes, mayPass) {
		return last
	}
	return &failedLogin{cause: errors.Join(causes...), passing: true, Denial: &armor.Denial{
		Reason: armor.ReasonServerLogin, Message: "PostgreSQL cannot be reached", Detail: fmt.Sprintf("No host of the database is %s now.", d.TargetSessionAttrs),
	}}
}

// mayPass reports whether a host that would not do may do in a while.
func mayPass(err error) bool {
	if failed, ok := errors.AsType[*failedLogin](err); ok && failed.Reason == armor.ReasonNotReady {
		return false
	}
	e, refused := errors.AsType[*pgconn.PgError](err)
	return !refused || e.Code[:min(2, len(e.Code))] == "57" // it starts, or ends
}

// mayPass reports whether the waiters of a role whose logins fail go on waiting.
func (s *subpool) mayPass() bool { return worthWaiting(s.failure) }

func worthWaiting(failure error) bool {
	failed, ok := errors.AsType[*failedLogin](failure)
	return ok && failed.passing
}

// misfitLocked reports whether a server connection that comes back leads to a server
// that is not what it was when somebody chose it: a standby that has been promoted.
func (p *pool) misfitLocked(c *ServerConn) bool {
	params := c.state.Params()
	if p.database.TargetSessionAttrs == armor.AnySession || c.judged == params {
		return false
	}
	c.judged = params
	standby, _ := params.Get("in_hot_standby")
	return standby != c.standby
}
