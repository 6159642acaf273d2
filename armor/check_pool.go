package armor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	// MaxPreparedStatements bounds what Pool.MaxPreparedStatements may say.
	MaxPreparedStatements = 10_000
	// MaxKeepSettings bounds Pool.KeepSettings.
	MaxKeepSettings = 32
	// MaxPoolText bounds Pool.ConnectQuery and Pool.LoginNotifyMessage, in bytes.
	MaxPoolText = 4096
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
	oneOf(&f, Field{"spec", "onState"}, p.OnState, ResetWord, KeepState, PinState, RefuseState)
	oneOf(&f, Field{"spec", "isolation"}, p.Isolation, IdentityWord, IsolatedClients, NoIsolation)
	f.count(Field{"spec", "maxClients"}, p.MaxClients, MaxClients)
	p.checkSizes(&f)
	p.checkTimes(&f)
	p.checkSession(&f)
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
		{"queryTimeout", p.QueryTimeout}, {"transactionTimeout", p.TransactionTimeout}, {"poolIdle", p.PoolIdle},
	} {
		if t.Duration < 0 || t.Duration > LongestTimeOut || t.Duration > 0 && t.Duration < ShortestTimeOut {
			f.wrong(Field{"spec", t.field}, "%s is not between %s and a year; 0s turns it off", t.Duration, ShortestTimeOut)
		}
	}
}

// checkSession looks at what the pool does for its clients' sessions.
func (p Pool) checkSession(f *faults) {
	f.count(Field{"spec", "maxPreparedStatements"}, p.MaxPreparedStatements, MaxPreparedStatements)
	if p.MaxPinned < NoPins || p.MaxPinned > MaxBudget {
		f.wrong(Field{"spec", "maxPinned"}, "%d is not between 0 and %d", p.MaxPinned, MaxBudget)
	}
	if len(p.KeepSettings) > MaxKeepSettings {
		f.wrong(Field{"spec", "keepSettings"}, "%d names, more than %d", len(p.KeepSettings), MaxKeepSettings)
	}
	for i, name := range p.KeepSettings {
		if err := CheckCustomSetting(name); err != nil {
			f.note(Field{"spec", "keepSettings", i}, err)
		} else if slices.Contains(p.KeepSettings[:i], name) {
			f.wrong(Field{"spec", "keepSettings", i}, "%q is there twice", name)
		}
	}
	if p.PoolIdle > 0 && !IsTemplate(p.Database) {
		f.wrong(Field{"spec", "poolIdle"}, "only the databases of the template (database: %q) are ever forgotten: leave it out", TemplateDatabase)
	}
	f.text(Field{"spec", "connectQuery"}, p.ConnectQuery, MaxPoolText)
	f.text(Field{"spec", "loginNotifyMessage"}, p.LoginNotifyMessage, MaxPoolText)
}

// CheckCustomSetting reports whether s is the name of a parameter that PostgreSQL lets
// anybody make up, in lower case: words with dots between them (PostgreSQL, "Customized
// Options").
func CheckCustomSetting(s string) error {
	words := strings.Split(s, ".")
	for _, word := range words {
		if len(words) < 2 || !isSettingWord(word) || len(s) > maxSettingName {
			return fmt.Errorf("%w: %q is not a name such as app.tenant, in lower case", ErrInvalid, s)
		}
	}
	return nil
}

// maxSettingName bounds the name of a parameter, in bytes.
const maxSettingName = 128

func isSettingWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if letter := c == '_' || c >= 'a' && c <= 'z'; !letter && (i == 0 || c != '$' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
