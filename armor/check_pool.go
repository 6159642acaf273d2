package armor

import "time"

// The bounds of a pool.
const (
	// MaxBudget bounds the server connections of one pool.
	MaxBudget = 100_000
	// MaxClients bounds what Pool.MaxClients and IdentityConfig.MaxConnections may say.
	MaxClients = 1_000_000
	// LongestQueryWait is the longest that a client may be kept waiting.
	LongestQueryWait = 24 * time.Hour
	// ShortestTimeOut is the shortest time-out that a pool may have: they are measured
	// coarsely.
	ShortestTimeOut = 100 * time.Millisecond
	// LongestTimeOut is the longest of all but QueryWait.
	LongestTimeOut = 365 * 24 * time.Hour
)

// WithDefaults fills in what cannot be off. What a manifest that says nothing means
// otherwise (DefaultServerLifetime and the like) is for its reader to fill in: zero is
// off here.
func (p Pool) WithDefaults() Pool {
	if p.QueryWait == 0 {
		p.QueryWait = DefaultQueryWait
	}
	return p
}

// Check returns the FieldErrors of a pool.
func (p Pool) Check() error {
	var f faults
	f.name(p.Name)
	oneOf(&f, Field{"spec", "mode"}, p.Mode, "", SessionMode, TransactionMode, StatementMode)
	oneOf(&f, Field{"spec", "onState"}, p.OnState, ResetWord, PinState, RefuseState)
	oneOf(&f, Field{"spec", "isolation"}, p.Isolation, IdentityWord, IsolatedClients, NoIsolation)
	f.count(Field{"spec", "maxClients"}, p.MaxClients, MaxClients)
	p.checkSizes(&f)
	p.checkTimes(&f)
	return f.err()
}

// checkSizes says nothing of what is a part of a budget that is wrong itself.
func (p Pool) checkSizes(f *faults) {
	switch {
	case p.Budget < 1:
		f.wrong(Field{"spec", "budget"}, "%d is too few: a pool has at least one server connection", p.Budget)
		return
	case p.Budget > MaxBudget:
		f.wrong(Field{"spec", "budget"}, "%d is more than %d", p.Budget, MaxBudget)
		return
	}
	if p.MinSize < 0 || p.MinSize > p.Budget {
		f.wrong(Field{"spec", "minSize"}, "%d is not between 0 and the budget, %d", p.MinSize, p.Budget)
	}
	if p.Reserve < 0 || p.Reserve >= p.Budget {
		f.wrong(Field{"spec", "reserve"}, "%d is not between 0 and %d, one less than the budget", p.Reserve, p.Budget-1)
	}
	if p.WarmUp && p.MinSize == 0 {
		f.wrong(Field{"spec", "warmUp"}, "it opens minSize server connections, so it needs a minSize")
	}
	if p.WarmUp && IsTemplate(p.Database) {
		f.wrong(Field{"spec", "warmUp"}, "the template's databases are not known before a client asks for one: leave it out")
	}
}

func (p Pool) checkTimes(f *faults) {
	if p.QueryWait < 0 || p.QueryWait > LongestQueryWait {
		f.wrong(Field{"spec", "queryWait"}, "%s is negative or more than a day", p.QueryWait)
	}
	if (p.Reserve > 0) != (p.ReserveAfter > 0) {
		f.wrong(Field{"spec", "reserveAfter"},
			"%s with a reserve of %d: a reserve is opened after some time, and without one there is nothing to open", p.ReserveAfter, p.Reserve)
	}
	for _, t := range []struct {
		field string
		time.Duration
	}{
		{"queryWaitNotify", p.QueryWaitNotify}, {"serverLifetime", p.ServerLifetime}, {"serverIdle", p.ServerIdle},
		{"reserveAfter", p.ReserveAfter}, {"clientIdle", p.ClientIdle}, {"idleInTransaction", p.IdleInTransaction},
		{"queryTimeout", p.QueryTimeout}, {"transactionTimeout", p.TransactionTimeout},
	} {
		if t.Duration < 0 || t.Duration > LongestTimeOut || t.Duration > 0 && t.Duration < ShortestTimeOut {
			f.wrong(Field{"spec", t.field}, "%s is not between %s and a year; 0s turns it off", t.Duration, ShortestTimeOut)
		}
	}
}
