package console

import (
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

var poolColumns = columns("ssiiiiiiiiiiiiiss", "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req",
	"cl_waiting_cancel_req", "sv_active", "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login",
	"maxwait", "maxwait_us", "pool_mode", "load_balance_hosts")

var databaseColumns = columns("ssissiiiissiiiiii", "name", "host", "port", "database", "force_user", "pool_size", "min_pool_size",
	"reserve_pool_size", "server_lifetime", "pool_mode", "load_balance_hosts", "max_connections", "current_connections",
	"max_client_connections", "current_client_connections", "paused", "disabled")

var userColumns = columns("ssssiiii", "name", "pool_size", "reserve_pool_size", "pool_mode", "max_user_connections",
	"current_connections", "max_user_client_connections", "current_client_connections")

var armorColumns = columns("ssssiiiiiiiiiis", "environment", "pool", "database", "mode", "budget", "share", "reserve", "open", "idle",
	"waiting", "pinned", "paused", "disabled", "clients", "not_ready")

// tallies are those of the client's environment.
func (s *session) tallies() []Tally {
	return slices.DeleteFunc(s.pooler().Tally(), func(t Tally) bool { return t.Config.Environment != s.Environment })
}

// ownName is the name under which the console lists itself, and its user.
const ownName = armor.ConsoleDatabasePgBouncer

// showPools has a row for each database and role, as PgBouncer: pools of one database
// are added up. SHOW ARMOR_POOLS tells them apart.
func (s *session) showPools() []row {
	var rows []row
	for _, r := range SumRoles(s.tallies()) {
		rows = append(rows, row{
			r.Database, r.Role, r.ClientsActive, r.ClientsWaiting, 0, 0, r.Active, 0, r.Canceled, r.Idle, 0, r.Tested, r.Login,
			int(r.MaxWait / time.Second), int(r.MaxWait % time.Second / time.Microsecond), string(r.First.Config.Mode),
			loadBalance(r.First.Database),
		})
	}
	return append(rows, row{ownName, ownName, s.visitors(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "statement", nil})
}

// loadBalance is how one of several hosts is chosen; NULL for a single one.
func loadBalance(d armor.Database) any {
	switch {
	case len(d.Hosts) < 2:
		return nil
	case d.LoadBalanceHosts == armor.RandomHost:
		return "round-robin"
	}
	return "disable"
}

// showDatabases: sizes are this node's share, which is all that it may open.
func (s *session) showDatabases() []row {
	var rows []row
	for _, d := range SumDatabases(s.tallies()) {
		rows = append(rows, databaseRow(d))
	}
	return append(rows, row{ownName, nil, 0, ownName, ownName, 2, 0, 0, 0, "statement", nil, 0, 0, 0, s.visitors(), 0, 0, 0})
}

func databaseRow(d DatabaseSum) row {
	host, port := d.Host()
	var mode any
	if d.Mode != "" {
		mode = string(d.Mode)
	}
	return row{
		d.Database.Name, host, port, d.ServerName(), nil, d.Limit - d.Reserve, d.MinSize, d.Reserve,
		int(d.First.ServerLifetime / time.Second), mode, loadBalance(d.Database), d.Limit, d.Open, d.MaxClients, d.Clients,
		flag(d.Paused), flag(d.Disabled), d.Reserve,
	}
}

// showUsers counts what each role has, over all databases of the environment.
func (s *session) showUsers() []row {
	servers, clients := map[string]int{}, map[string]int{}
	var names []string
	for _, t := range s.tallies() {
		for _, r := range t.Roles {
			if _, seen := servers[r.Role]; !seen {
				names = append(names, r.Role)
			}
			servers[r.Role] += r.Active + r.Idle + r.Tested + r.Canceled + r.Login
			clients[r.Role] += r.ClientsActive + r.ClientsWaiting
		}
	}
	slices.Sort(names)
	var rows []row
	for _, name := range names {
		rows = append(rows, row{name, "", "", nil, 0, servers[name], 0, clients[name]})
	}
	return append(rows, row{ownName, "", "", nil, 0, 0, 0, s.visitors()})
}

// showArmorPools tells apart what PgBouncer's tables add up.
func (s *session) showArmorPools() []row {
	var rows []row
	for _, t := range s.tallies() {
		rows = append(rows, armorRow(t.Config, t.Status, t.Clients()))
	}
	return rows
}

func armorRow(p armor.Pool, s armor.PoolStatus, clients int) row {
	return row{
		p.Environment, p.Name, p.Database, string(p.Mode), p.Budget, s.Limit, p.ReserveOf(s.Limit), s.Open, s.Idle,
		s.Waiting, s.Pinned, flag(s.Paused), flag(s.Disabled), clients, s.NotReady,
	}
}
