package armor

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// CheckBudgets judges what a change makes of a configuration, which was before: no pool may
// begin to lead where another one does, to one role of one database on one host, for there
// each has a budget of its own and PostgreSQL sees the sum (ErrConflict). Those that met before
// may go on. The roles of a pool are those that somebody is granted there.
//
// One host under two names counts as two: nobody here can know.
func (s *State) CheckBudgets(before *State) error {
	now, then := s.meetings(), before.meetings()
	for _, at := range now.places() {
		for _, p := range now[at] {
			if then.has(at, p) {
				continue
			}
			if other, meets := now.whoMeets(s, at, p); meets {
				return fmt.Errorf("%w: pools %s and %s both lead to role %s of database %s on %s,"+
					" where PostgreSQL would see %d + %d server connections:"+
					" grant the role in one of them, give one another role, or say that the budgets add up (armorctl apply --add-budgets)",
					ErrConflict, other.Key(), p.Key(), at.role, at.named(p), at.host, other.Budget, p.Budget)
			}
		}
	}
	return nil
}

// place is what a budget is for.
type place struct{ host, dbname, role string }

// named is the database for people.
func (p place) named(l leading) string {
	if p.dbname == "" {
		return l.database.DBName + " (any)"
	}
	return p.dbname
}

// leading is a pool that leads to a place, by its database.
type leading struct {
	Pool
	database Database
}

// meetings are the pools that lead to each place, in the order of their keys. The template's
// lead to the database "", which stands for any.
type meetings map[place][]leading

func (s *State) meetings() meetings {
	granted := s.grantedRoles()
	m := meetings{}
	for _, p := range s.Pools.All() {
		d, found := s.Databases.Get(ObjectKey(p.Environment, p.Database))
		if !found {
			continue
		}
		for _, at := range placesOf(d, granted[p.Key()]) {
			m[at] = append(m[at], leading{p, d})
		}
	}
	return m
}

// grantedRoles are the roles by pool, sorted.
func (s *State) grantedRoles() map[string][]string {
	all := map[string][]string{}
	for _, i := range s.Identities.All() {
		for _, g := range i.Grants {
			if !IsConsole(g.Database) {
				key := ObjectKey(i.Environment, g.Pool)
				all[key] = append(all[key], g.Roles...)
			}
		}
	}
	for key, roles := range all {
		slices.Sort(roles)
		all[key] = slices.Compact(roles)
	}
	return all
}

func placesOf(d Database, roles []string) (all []place) {
	for _, host := range d.Hosts {
		for _, role := range roles {
			if at := (place{plainHost(host), d.DBName, role}); !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	}
	return all
}

// plainHost is one spelling for all spellings of a host that are plainly the same.
func plainHost(s string) string {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s
	}
	host, port := s[:i], strings.TrimLeft(s[i+1:], "0")
	if path.IsAbs(host) {
		return path.Clean(host) + ":" + port
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	return host + ":" + port
}

// places are all of them, in an order that every node has.
func (m meetings) places() (all []place) {
	for at := range m {
		all = append(all, at)
	}
	slices.SortFunc(all, func(a, b place) int {
		return slices.Compare([]string{a.host, a.dbname, a.role}, []string{b.host, b.dbname, b.role})
	})
	return all
}

func (m meetings) has(at place, l leading) bool {
	return slices.ContainsFunc(m[at], func(o leading) bool { return o.Key() == l.Key() && o.leadsAs(l.database) })
}

// leadsAs reports whether the pool reached its servers by the same choice of hosts.
func (l leading) leadsAs(d Database) bool {
	return l.database.TargetSessionAttrs == d.TargetSessionAttrs
}

// whoMeets returns another pool that leads to the place, or may by the template.
func (m meetings) whoMeets(s *State, at place, l leading) (leading, bool) {
	for _, o := range m[at] {
		if o.Key() != l.Key() && !apart(o.database, l.database) {
			return o, true
		}
	}
	if at.dbname == "" {
		return m.whoIsOpened(s, at, l)
	}
	for _, o := range m[place{at.host, "", at.role}] {
		if o.opens(s, at.dbname) && !apart(o.database, l.database) {
			return o, true
		}
	}
	return leading{}, false
}

// whoIsOpened returns a pool of a listed database that the template's pool may open, too.
func (m meetings) whoIsOpened(s *State, at place, l leading) (leading, bool) {
	for _, other := range m.places() {
		if other.host != at.host || other.role != at.role || other.dbname == "" || !l.opens(s, other.dbname) {
			continue
		}
		for _, o := range m[other] {
			if !apart(o.database, l.database) {
				return o, true
			}
		}
	}
	return leading{}, false
}

// opens reports whether the template opens a database of the server: one that is not listed
// under that name in its environment.
func (l leading) opens(s *State, dbname string) bool {
	return !s.Databases.Has(ObjectKey(l.Environment, dbname))
}

// apart reports whether two databases never choose the same host at one time: the one wants a
// primary, the other a standby.
func apart(a, b Database) bool { return writes(a) && onlyReads(b) || writes(b) && onlyReads(a) }

func writes(d Database) bool {
	return d.TargetSessionAttrs == ReadWrite || d.TargetSessionAttrs == Primary
}

func onlyReads(d Database) bool { return d.TargetSessionAttrs == Standby }
