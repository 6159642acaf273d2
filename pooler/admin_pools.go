package pooler

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/armordb/armordb/armor"
)

var poolColumns = columns("ssiiiiiiiiiiiiiss", "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req",
	"sv_active", "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us",
	"pool_mode", "load_balance_hosts")

var databaseColumns = columns("ssissiiiissiiiiii", "name", "host", "port", "database", "force_user", "pool_size", "min_pool_size",
	"reserve_pool_size", "server_lifetime", "pool_mode", "load_balance_hosts", "max_connections", "current_connections",
	"max_client_connections", "current_client_connections", "paused", "disabled")

var statsNames = []string{"server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time", "wait_time",
	"client_parse_count", "server_parse_count", "bind_count"}

var statsColumns = columns("s"+"NNNNNNNNNNN"+"NNNNNNNNNNN", slices.Concat([]string{"database"}, prefixed("total_"), prefixed("avg_"))...)

var statsPartColumns = columns("sNNNNNNNNNNN", "database", "server_assignment_count", "xact_count", "query_count", "bytes_received", "bytes_sent",
	"xact_time", "query_time", "wait_time", "client_parse_count", "server_parse_count", "bind_count")

// prefixed names the columns of SHOW STATS; one of them has two names.
func prefixed(prefix string) []string {
	var all []string
	for _, n := range statsNames {
		if prefix == "avg_" && n == "received" {
			n = "recv"
		}
		all = append(all, prefix+n)
	}
	return all
}

// tallies are those of the console's environment.
func (c *console) tallies() []Tally {
	return slices.DeleteFunc(c.home.Tally(), func(t Tally) bool { return t.Config.Environment != c.environment })
}

// consoles is how many clients of the environment are at the console.
func (c *console) consoles() (n int) {
	for _, cl := range c.home.allClients() {
		if cl.atConsole() && environmentOf(cl.pool.key) == c.environment {
			n++
		}
	}
	return n
}

// consoleDatabase is the name under which the console lists itself, and its user.
const consoleDatabase = armor.ConsoleDatabasePgBouncer

// showPools has a row for each database and role, as PgBouncer: pools of one database
// are added up. SHOW ARMOR_POOLS tells them apart.
func (c *console) showPools() []row {
	type key struct{ database, role string }
	sums, of := map[key]*RoleTally{}, map[key]Tally{}
	var order []key
	for _, t := range c.tallies() {
		for _, r := range t.Roles {
			k := key{r.Database, r.Role}
			if sums[k] == nil {
				sums[k], of[k] = &RoleTally{Role: r.Role}, t
				order = append(order, k)
			}
			sums[k].Add(r)
		}
	}
	slices.SortFunc(order, func(a, b key) int { return cmp.Or(cmp.Compare(a.database, b.database), cmp.Compare(a.role, b.role)) })
	var rows []row
	for _, k := range order {
		s := sums[k]
		rows = append(rows, row{k.database, k.role, s.ClientsActive, s.ClientsWaiting, 0, 0, s.Active, 0, s.Canceled, s.Idle, 0, s.Tested, s.Login,
			int(s.MaxWait / time.Second), int(s.MaxWait % time.Second / time.Microsecond), string(of[k].Config.Mode), loadBalance(of[k].Database)})
	}
	return append(rows, row{consoleDatabase, consoleDatabase, c.consoles(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "statement", nil})
}

// Add sums up one role's parts of two pools.
func (r *RoleTally) Add(o RoleTally) {
	r.ClientsActive += o.ClientsActive
	r.ClientsWaiting += o.ClientsWaiting
	r.MaxWait = max(r.MaxWait, o.MaxWait)
	r.Active += o.Active
	r.Idle += o.Idle
	r.Tested += o.Tested
	r.Canceled += o.Canceled
	r.Login += o.Login
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

// byDatabase are the tallies of each database, in the order of their names.
func byDatabase(tallies []Tally) [][]Tally {
	slices.SortStableFunc(tallies, func(a, b Tally) int { return cmp.Compare(a.Config.Database, b.Config.Database) })
	var groups [][]Tally
	for _, t := range tallies {
		if n := len(groups); n > 0 && groups[n-1][0].Config.Database == t.Config.Database {
			groups[n-1] = append(groups[n-1], t)
			continue
		}
		groups = append(groups, []Tally{t})
	}
	return groups
}

// showDatabases: sizes are this node's share, which is all that it may open.
func (c *console) showDatabases() []row {
	var rows []row
	for _, group := range byDatabase(c.tallies()) {
		rows = append(rows, databaseRow(group))
	}
	return append(rows, row{consoleDatabase, nil, 0, consoleDatabase, consoleDatabase, 2, 0, 0, 0, "statement", nil, 0, 0, 0, c.consoles(), 0, 0, 0})
}

func databaseRow(group []Tally) row {
	d := group[0].Database
	host, port := FirstHost(d)
	size, reserve, smallest, open, clients, most := 0, 0, 0, 0, 0, 0
	paused, disabled := true, true
	var mode any = string(group[0].Config.Mode)
	for _, t := range group {
		size, open = size+t.Status.Limit, open+t.Status.Open
		reserve += t.Config.ReserveOf(t.Status.Limit)
		smallest, most = smallest+t.Config.MinSize, most+t.Config.MaxClients
		paused, disabled = paused && t.Status.Paused, disabled && t.Status.Disabled
		clients += t.Clients()
		if t.Config.Mode != group[0].Config.Mode {
			mode = nil
		}
	}
	lifetime := int(group[0].Config.ServerLifetime / time.Second)
	return row{d.Name, host, port, ServerName(d), nil, size - reserve, smallest, reserve, lifetime, mode, loadBalance(d), size, open, most, clients, flag(paused), flag(disabled), reserve}
}

// Clients is how many there are.
func (t Tally) Clients() (n int) {
	for _, r := range t.Roles {
		n += r.ClientsActive + r.ClientsWaiting
	}
	return n
}

// ServerName is the database's name on the server. The template has its own there: its
// databases have no row each, since clients choose how many there are.
func ServerName(d armor.Database) string { return cmp.Or(d.DBName, d.Name) }

// FirstHost is where a database is looked for first.
func FirstHost(d armor.Database) (host string, port int) {
	if len(d.Hosts) == 0 {
		return "", 0
	}
	host, text, err := net.SplitHostPort(d.Hosts[0])
	if err != nil {
		return d.Hosts[0], 0
	}
	port, _ = strconv.Atoi(text) // it was checked when it was configured
	return host, port
}

// showUsers counts what each role has, over all databases of the environment.
func (c *console) showUsers() []row {
	servers, clients := map[string]int{}, map[string]int{}
	var names []string
	for _, t := range c.tallies() {
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
	return append(rows, row{consoleDatabase, "", "", nil, 0, 0, 0, c.consoles()})
}

// showArmorPools tells apart what PgBouncer's tables add up.
func (c *console) showArmorPools() []row {
	var rows []row
	for _, t := range c.tallies() {
		s := t.Status
		rows = append(rows, row{t.Config.Environment, t.Config.Name, t.Config.Database, string(t.Config.Mode), t.Config.Budget, s.Limit, t.Config.ReserveOf(s.Limit), s.Open, s.Idle,
			s.Waiting, flag(s.Paused), flag(s.Disabled), t.Clients(), s.NotReady})
	}
	return rows
}

// sums adds up what the pools of a database have done.
func sums(group []Tally) (total Totals, rates Rates) {
	for _, t := range group {
		total.Add(t.Totals)
		rates.add(t.Rates)
	}
	return total, rates
}

// numbers are those of statsNames.
func (t Totals) numbers() []any {
	us := func(d time.Duration) int { return int(d / time.Microsecond) }
	return []any{int(t.Assignments), int(t.Transactions), int(t.Queries), int(t.Received), int(t.Sent), us(t.Lent), us(t.Lent), us(t.Waited),
		int(t.ClientParses), int(t.ServerParses), int(t.Binds)}
}

// numbers are the same by the second, but the times of transactions and queries, which
// are means.
func (r Rates) numbers() []any {
	n := r.Totals.numbers()
	n[5], n[6] = int(r.Transaction/time.Microsecond), int(r.Query/time.Microsecond)
	return n
}

// statsRows has a row for each database.
func (c *console) statsRows(of func(Totals, Rates) []any) []row {
	var rows []row
	for _, group := range byDatabase(c.tallies()) {
		rows = append(rows, append(row{group[0].Config.Database}, of(sums(group))...))
	}
	return append(rows, append(row{consoleDatabase}, of(Totals{}, Rates{})...))
}

func (c *console) showStats() []row {
	return c.statsRows(func(t Totals, r Rates) []any {
		totals, rates := t.numbers(), r.numbers()
		return slices.Concat(totals, rates, []any{totals[2], rates[2], rates[6]})
	})
}

func (c *console) showStatsTotals() []row {
	return c.statsRows(func(t Totals, _ Rates) []any { return t.numbers() })
}

func (c *console) showStatsAverages() []row {
	return c.statsRows(func(_ Totals, r Rates) []any { return r.numbers() })
}

func (c *console) showTotals() []row {
	total, rates := sums(c.tallies())
	var rows []row
	for _, part := range []struct {
		prefix  string
		numbers []any
	}{{"total_", total.numbers()}, {"avg_", rates.numbers()}} {
		for i, name := range statsNames {
			switch name { // SHOW TOTALS has names of its own for these
			case "received":
				name = "client_bytes"
			case "sent":
				name = "server_bytes"
			}
			rows = append(rows, row{part.prefix + name, part.numbers[i]})
		}
	}
	return rows
}
