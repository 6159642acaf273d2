package pooler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgwire"
)

// terms are what a login says to PostgreSQL beside database and role, where that is not
// what every login of the role says. They are immutable, but for nil, which is what
// everybody's are.
type terms struct {
	replication armor.Replication
	parameters  map[string]string // of the startup packet, by name
}

// reserved are words of the startup packet that are no settings. In options, where
// they would be some, PostgreSQL does not know them.
var reserved = []string{"user", "database", "options", "replication"}

// makeTerms finds what the request's login has to say by itself in a pool of the given
// mode, and takes the settings that are in it over. In session mode that makes RESET and
// DISCARD ALL lead to them, as they do without a pooler; an application's name is left
// out, so that those who differ by nothing else share server connections. A replication
// connection logs in with everything: not every one can SET.
func (r *request) makeTerms(mode armor.PoolMode) *pgwire.Error {
	if r.replication == armor.NoReplication && (mode != armor.SessionMode || len(r.settings) == 0) {
		return nil
	}
	t := &terms{replication: r.replication, parameters: r.settings}
	for name := range t.parameters {
		if slices.Contains(reserved, name) || strings.HasPrefix(name, pgwire.OptionPrefix) {
			return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateUnknownSetting, Message: fmt.Sprintf("unrecognized configuration parameter %q", name)}
		}
	}
	if t.once() && r.application != "" {
		t.parameters["application_name"] = r.application
	}
	r.settings, r.terms = map[string]string{}, t
	return nil
}

// refused returns PostgreSQL's own words about a login that has failed for what the
// client has asked for; nil if there is no telling.
func (t *terms) refused(err error) *pgwire.Error {
	e := backend.Refusal(err)
	if t == nil || e == nil || !strings.HasPrefix(e.Code, "22") && !slices.Contains([]string{"42501", stateUnknownSetting, "42602", "55P02"}, e.Code) {
		return nil
	}
	return e
}

// kind is what the connection replicates.
func (t *terms) kind() armor.Replication {
	if t == nil {
		return armor.NoReplication
	}
	return t.replication
}

// once reports whether such a connection serves one client and ends with it: what a
// replication connection has behind it, no reset undoes.
func (t *terms) once() bool { return t.kind() != armor.NoReplication }

// mode is that of a session in a pool of the given one.
func (t *terms) mode(pool armor.PoolMode) armor.PoolMode {
	if t.once() {
		return armor.SessionMode
	}
	return pool
}

// startup returns the parameters of the startup packet, for the caller to change.
func (t *terms) startup() map[string]string {
	all := map[string]string{}
	if t == nil {
		return all
	}
	maps.Copy(all, t.parameters)
	switch t.replication {
	case armor.PhysicalReplication:
		all["replication"] = "true"
	case armor.LogicalReplication:
		all["replication"] = "database"
	}
	return all
}

// words tells terms apart. No word of a startup packet has a NUL in it.
func (t *terms) words() string {
	all := t.startup()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(name + "\x00" + all[name] + "\x00")
	}
	return b.String()
}

// partLocked returns the part of the pool that a borrower is lent from.
func (p *pool) partLocked(by *borrower) *subpool {
	if sub := p.subs[by.part]; sub != nil {
		return sub
	}
	if by.terms != nil {
		p.forgetTermsLocked()
	}
	sub := p.subLocked(by.part)
	sub.terms = by.terms
	return sub
}

// forgetTermsLocked drops the parts with terms of their own that nobody uses, so that
// there are never many more than there are clients.
func (p *pool) forgetTermsLocked() {
	maps.DeleteFunc(p.subs, func(_ part, s *subpool) bool {
		return s.terms != nil && s.live+s.opening+s.coming == 0 && !s.backingOff() && !p.awaitedByLocked(s)
	})
}

// awaitedByLocked reports whether a client waits for a connection of the part.
func (p *pool) awaitedByLocked(sub *subpool) bool {
	for e := p.waiters.Front(); e != nil; e = e.Next() {
		if e.Value.(*waiter).sub == sub {
			return true
		}
	}
	return false
}
