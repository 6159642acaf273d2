package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

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
		otherwise := armor.AnySession
		if d.MaxLag > 0 { // a standby that is too far behind is no better when it is asked again
			otherwise = armor.Primary
		}
		return append(wanting(hosts, armor.Standby), wanting(hosts, otherwise)...)
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

// within tries the host for a while.
func (a attempt) within(ctx context.Context, patience time.Duration) (*Conn, *dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, failed, err := a.logIn(ctx)
	if err != nil {
		return nil, failed, a.explained(err)
	}
	err = qualifies(c.state.Params(), a.want)
	if err == nil {
		err = a.isFresh(ctx, c)
	}
	if err == nil {
		err = c.begin(ctx)
	}
	if err != nil {
		c.sayGoodbye()
		return nil, &dialed{Conn: c.raw, entry: c.entry}, fmt.Errorf("%s: %w", a.host, err)
	}
	if remembers(a.target.Database) {
		c.first = a.host
	}
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
		return notReady(fmt.Errorf("%w: the server does not report in_hot_standby: target session attributes need PostgreSQL 14 or later",
			armor.ErrInvalid))
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
// about to be promoted, most likely. Where any host would do, it is worth waiting for one that
// is being started again.
func noHost(d armor.Database, causes []error) error {
	last := causes[len(causes)-1]
	if d.TargetSessionAttrs == armor.AnySession {
		if failed, ok := errors.AsType[*LoginError](last); ok && slices.ContainsFunc(causes, isAway) {
			return &LoginError{Cause: errors.Join(causes...), Passing: true, Away: true, Denial: failed.Denial}
		}
		return last
	}
	if !slices.ContainsFunc(causes, mayPass) {
		return last
	}
	return &LoginError{Cause: errors.Join(causes...), Passing: true, Denial: &armor.Denial{
		Reason: armor.ReasonServerLogin, Message: "PostgreSQL cannot be reached",
		Detail: fmt.Sprintf("No host of the database is %s now.", d.TargetSessionAttrs) + whoIsBehind(d, causes),
	}}
}
