package console

import (
	"cmp"
	"net"
	"slices"
	"strconv"

	"github.com/armordb/armordb/armor"
)

// DatabaseSum adds up the pools of one database, which PgBouncer's names do not tell
// apart.
type DatabaseSum struct {
	Database armor.Database
	First    armor.Pool     // of its pools, in the order of their keys
	Mode     armor.PoolMode // of all of them; empty if they differ

	Limit, Reserve   int // server connections that this node may have, and of those the reserve
	Open             int // server connections
	MinSize          int
	Clients          int
	MaxClients       int
	Paused, Disabled bool // all of its pools are
	Totals           Totals
	Rates            Rates
}

// SumDatabases adds up the pools of each database, in the order of environments and
// names.
func SumDatabases(tallies []Tally) []DatabaseSum {
	tallies = slices.SortedStableFunc(slices.Values(tallies), func(a, b Tally) int {
		return cmp.Or(cmp.Compare(a.Config.Environment, b.Config.Environment), cmp.Compare(a.Config.Database, b.Config.Database))
	})
	var sums []DatabaseSum
	for _, t := range tallies {
		n := len(sums)
		if n == 0 || !sums[n-1].has(t.Config) {
			sums = append(sums, DatabaseSum{Database: t.Database, First: t.Config, Mode: t.Config.Mode, Paused: true, Disabled: true})
			n++
		}
		sums[n-1].add(t)
	}
	return sums
}

func (d *DatabaseSum) has(p armor.Pool) bool {
	return d.First.Environment == p.Environment && d.First.Database == p.Database
}

func (d *DatabaseSum) add(t Tally) {
	d.Limit, d.Open = d.Limit+t.Status.Limit, d.Open+t.Status.Open
	d.Reserve += t.Config.ReserveOf(t.Status.Limit)
	d.MinSize, d.MaxClients = d.MinSize+t.Config.MinSize, d.MaxClients+t.Config.MaxClients
	d.Paused, d.Disabled = d.Paused && t.Status.Paused, d.Disabled && t.Status.Disabled
	d.Clients += t.Clients()
	d.Totals.Add(t.Totals)
	d.Rates.Add(t.Rates)
	if t.Config.Mode != d.First.Mode {
		d.Mode = ""
	}
}

// ServerName is the database's name on the server. The template has its own there: its
// databases have no row each, since clients choose how many there are.
func (d *DatabaseSum) ServerName() string { return cmp.Or(d.Database.DBName, d.Database.Name) }

// Host is where the database is looked for first.
func (d *DatabaseSum) Host() (host string, port int) {
	if len(d.Database.Hosts) == 0 {
		return "", 0
	}
	first := d.Database.Hosts[0]
	host, text, err := net.SplitHostPort(first)
	if err != nil {
		return first, 0
	}
	port, _ = strconv.Atoi(text) // it was checked when it was configured
	return host, port
}

// RoleSum adds up a role's parts of all pools of one database.
type RoleSum struct {
	Environment string
	RoleTally
	First Tally // of these pools, in the order of their keys
}

// SumRoles adds up by environment, database and role, in their order. Databases are those
// that clients ask for, which the template has many of.
func SumRoles(tallies []Tally) []RoleSum {
	return sumRoles(tallies, func(_ Tally, r RoleTally) string { return r.Database })
}

// SumConfiguredRoles is SumRoles, but the template is one database: its clients choose how
// many there are.
func SumConfiguredRoles(tallies []Tally) []RoleSum {
	return sumRoles(tallies, func(t Tally, _ RoleTally) string { return t.Config.Database })
}

func sumRoles(tallies []Tally, databaseOf func(Tally, RoleTally) string) []RoleSum {
	type key struct{ environment, database, role string }
	at := map[key]int{}
	var sums []RoleSum
	for _, t := range tallies {
		for _, r := range t.Roles {
			k := key{t.Config.Environment, databaseOf(t, r), r.Role}
			i, known := at[k]
			if !known {
				i, at[k] = len(sums), len(sums)
				sums = append(sums, RoleSum{Environment: k.environment, RoleTally: RoleTally{Database: k.database, Role: k.role}, First: t})
			}
			sums[i].Add(r)
		}
	}
	slices.SortFunc(sums, func(a, b RoleSum) int {
		return cmp.Or(cmp.Compare(a.Environment, b.Environment), cmp.Compare(a.Database, b.Database), cmp.Compare(a.Role, b.Role))
	})
	return sums
}

// Lists count what SHOW LISTS counts.
type Lists struct {
	Databases, Users, Pools int // Pools are pairs of a database and a role
	Clients                 int // of pools
	FreeServers, Servers    int // server connections that could still be opened, and those that are
}

// Count counts what there is in sums by database and by role.
func Count(databases []DatabaseSum, roles []RoleSum) Lists {
	l := Lists{Databases: len(databases), Pools: len(roles)}
	limit := 0
	for _, d := range databases {
		limit, l.Servers, l.Clients = limit+d.Limit, l.Servers+d.Open, l.Clients+d.Clients
	}
	users := map[string]bool{}
	for _, r := range roles {
		users[r.Role] = true
	}
	l.Users, l.FreeServers = len(users), max(limit-l.Servers, 0)
	return l
}
