package console

import (
	"fmt"
	"strings"

	"github.com/armordb/armordb/pooler/pgwire"
)

// table is what SHOW shows: PgBouncer's columns, in its order, with its types.
type table struct {
	columns []column
	rows    func(*session) []row
	legacy  []column // of the oldest PgBouncers, behind the others when they are asked for
}

// tables are what SHOW knows by name. Only those that begin with armor_ have columns of
// our own: PgBouncer's tools count columns.
var tables = map[string]table{
	"active_sockets": {columns: socketColumns(true), rows: (*session).showNothing},
	"armor_pools":    {columns: armorColumns, rows: (*session).showArmorPools},
	"clients":        {columns: socketColumns(false), rows: (*session).showClients},
	"config":         {columns: columns("ssss", "key", "value", "default", "changeable"), rows: (*session).showConfig},
	"databases":      {columns: databaseColumns, rows: (*session).showDatabases, legacy: columns("i", "reserve_pool")},
	"dns_hosts":      {columns: columns("sqs", "hostname", "ttl", "addrs"), rows: (*session).showNothing},
	"dns_zones":      {columns: columns("sqi", "zonename", "serial", "count"), rows: (*session).showNothing},
	"lists":          {columns: columns("si", "list", "items"), rows: (*session).showLists},
	"mem":            {columns: columns("siiii", "name", "size", "used", "free", "memtotal"), rows: (*session).showMem},
	"peer_pools": {columns: columns("iiiii", "peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"),
		rows: (*session).showNothing},
	"peers":          {columns: columns("isii", "peer_id", "host", "port", "pool_size"), rows: (*session).showNothing},
	"pools":          {columns: poolColumns, rows: (*session).showPools},
	"servers":        {columns: socketColumns(false), rows: (*session).showServers},
	"sockets":        {columns: socketColumns(true), rows: (*session).showSockets},
	"state":          {columns: columns("ss", "key", "value"), rows: (*session).showState},
	"stats":          {columns: statsColumns, rows: (*session).showStats, legacy: columns("NNN", "total_requests", "avg_req", "avg_query")},
	"stats_averages": {columns: statsPartColumns, rows: (*session).showStatsAverages},
	"stats_totals":   {columns: statsPartColumns, rows: (*session).showStatsTotals},
	"totals":         {columns: columns("sN", "name", "value"), rows: (*session).showTotals},
	"users":          {columns: userColumns, rows: (*session).showUsers},
	"version":        {columns: columns("s", "version"), rows: (*session).showVersion},
}

// columnsOf are the columns of a command's answer, nil if it has none.
func (s *session) columnsOf(cmd command) []column {
	if cmd.verb != "show" {
		return nil
	}
	name := strings.ToLower(cmd.arg)
	if _, ok := ignoredSettings[name]; ok {
		return columns("s", name)
	}
	t := tables[name]
	if s.legacy && t.legacy != nil {
		return append(t.columns[:len(t.columns):len(t.columns)], t.legacy...)
	}
	return t.columns
}

func (s *session) show(cmd command) (answer, *pgwire.Error) {
	name := strings.ToLower(cmd.arg)
	a := answer{columns: s.columnsOf(cmd), tag: "SHOW"}
	if value, ok := ignoredSettings[name]; ok {
		a.rows = []row{{value}}
		return a, nil
	}
	switch name {
	case "help":
		a.notice = consoleHelp()
		return a, nil
	case "fds":
		e := refusal(stateUnsupported, "SHOW FDS is not available")
		e.Detail = "A node hands its sockets, and the secrets that belong to them, to nobody."
		return a, e
	}
	t, ok := tables[name]
	if !ok {
		return a, invalidCommand(cmd)
	}
	for _, r := range t.rows(s) {
		a.rows = append(a.rows, r[:len(a.columns)]) // rows have the old columns always
	}
	return a, nil
}

func consoleHelp() *pgwire.Error {
	return &pgwire.Error{
		Severity: "NOTICE", Code: "00000", Message: "Console usage", Detail: "\n\t" + strings.Join([]string{
			"SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION",
			"SHOW PEERS|PEER_POOLS",
			"SHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE",
			"SHOW DNS_HOSTS|DNS_ZONES",
			"SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS",
			"SHOW ARMOR_POOLS",
			"RELOAD",
			"PAUSE [<db>]",
			"RESUME [<db>]",
			"DISABLE <db>",
			"ENABLE <db>",
			"RECONNECT [<db>]",
			"KILL [<db>]",
			"KILL_CLIENT <client_id>",
			"SHUTDOWN",
			"SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
			"WAIT_CLOSE [<db>]",
		}, "\n\t"),
		Hint: "These act on this node alone; armorctl pool acts on every node.",
	}
}

// showNothing is for what a node does not have: resolvers of its own, peers in
// PgBouncer's sense, and buffers that are looked at.
func (s *session) showNothing() []row { return nil }

func (s *session) showVersion() []row {
	return []row{{fmt.Sprintf("PgBouncer %s compatible, Armor %s", compatible, s.console.cfg.Version)}}
}

func (s *session) showState() []row {
	paused := s.pooler().AllPaused(s.Environment)
	return []row{{"active", yesNo(!paused)}, {"paused", yesNo(paused)}, {"suspended", "no"}}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// showLists counts what there is. Clients are the node's; the rest is the
// environment's.
func (s *session) showLists() []row {
	tallies := s.tallies()
	n, clients := Count(SumDatabases(tallies), SumRoles(tallies)), s.pooler().Count()
	return []row{
		{"databases", n.Databases + 1}, {"users", n.Users + 1}, {"peers", 0}, {"pools", n.Pools + 1}, {"peer_pools", 0},
		{"free_clients", max(s.console.cfg.MaxClients-clients, 0)}, {"used_clients", clients}, {"login_clients", 0},
		{"free_servers", n.FreeServers}, {"used_servers", n.Servers},
		{"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0},
	}
}
