package pooler

import (
	"fmt"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgwire"
)

// table is what SHOW shows: PgBouncer's columns, in its order, with its types.
type table struct {
	columns []column
	rows    func(*console) []row
	legacy  []column // of the oldest PgBouncers, behind the others when they are asked for
}

// tables are what SHOW knows by name. Only those that begin with armor_ have columns of
// our own: PgBouncer's tools count columns.
var tables map[string]table

func init() { // they refer to functions that refer to them
	tables = map[string]table{
		"active_sockets": {columns: socketColumns(true), rows: (*console).showNothing},
		"armor_pools": {columns: columns("ssssiiiiiiiiis", "environment", "pool", "database", "mode", "budget", "share", "reserve", "open", "idle",
			"waiting", "paused", "disabled", "clients", "not_ready"), rows: (*console).showArmorPools},
		"clients":   {columns: socketColumns(false), rows: (*console).showClients},
		"config":    {columns: columns("ssss", "key", "value", "default", "changeable"), rows: (*console).showConfig},
		"databases": {columns: databaseColumns, rows: (*console).showDatabases, legacy: columns("i", "reserve_pool")},
		"dns_hosts": {columns: columns("sqs", "hostname", "ttl", "addrs"), rows: (*console).showNothing},
		"dns_zones": {columns: columns("sqi", "zonename", "serial", "count"), rows: (*console).showNothing},
		"lists":     {columns: columns("si", "list", "items"), rows: (*console).showLists},
		"mem":       {columns: columns("siiii", "name", "size", "used", "free", "memtotal"), rows: (*console).showMem},
		"peer_pools": {columns: columns("iiiii", "peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"),
			rows: (*console).showNothing},
		"peers":          {columns: columns("isii", "peer_id", "host", "port", "pool_size"), rows: (*console).showNothing},
		"pools":          {columns: poolColumns, rows: (*console).showPools},
		"servers":        {columns: socketColumns(false), rows: (*console).showServers},
		"sockets":        {columns: socketColumns(true), rows: (*console).showSockets},
		"state":          {columns: columns("ss", "key", "value"), rows: (*console).showState},
		"stats":          {columns: statsColumns, rows: (*console).showStats, legacy: columns("NNN", "total_requests", "avg_req", "avg_query")},
		"stats_averages": {columns: statsPartColumns, rows: (*console).showStatsAverages},
		"stats_totals":   {columns: statsPartColumns, rows: (*console).showStatsTotals},
		"totals":         {columns: columns("sN", "name", "value"), rows: (*console).showTotals},
		"users": {columns: columns("ssssiiii", "name", "pool_size", "reserve_pool_size", "pool_mode", "max_user_connections", "current_connections",
			"max_user_client_connections", "current_client_connections"), rows: (*console).showUsers},
		"version": {columns: columns("s", "version"), rows: (*console).showVersion},
	}
}

// columnsOf are the columns of a command's answer, nil if it has none.
func (c *console) columnsOf(cmd command) []column {
	if cmd.verb != "show" {
		return nil
	}
	name := strings.ToLower(cmd.arg)
	if _, ok := ignoredSettings[name]; ok {
		return columns("s", name)
	}
	t := tables[name]
	if c.legacy && t.legacy != nil {
		return append(t.columns[:len(t.columns):len(t.columns)], t.legacy...)
	}
	return t.columns
}

func (c *console) show(cmd command) (answer, *pgwire.Error) {
	name := strings.ToLower(cmd.arg)
	a := answer{columns: c.columnsOf(cmd), tag: "SHOW"}
	if value, ok := ignoredSettings[name]; ok {
		a.rows = []row{{value}}
		return a, nil
	}
	switch name {
	case "help":
		a.notice = consoleHelp()
		return a, nil
	case "fds":
		e := consoleError(stateUnsupported, "SHOW FDS is not available")
		e.Detail = "A node hands its sockets, and the secrets that belong to them, to nobody."
		return a, e
	}
	t, ok := tables[name]
	if !ok {
		return a, invalidCommand(cmd)
	}
	for _, r := range t.rows(c) {
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
func (c *console) showNothing() []row { return nil }

func (c *console) showVersion() []row {
	return []row{{fmt.Sprintf("PgBouncer %s compatible, Armor %s", compatible, c.home.cfg.Console.Version)}}
}

func (c *console) showState() []row {
	paused := c.home.isPaused(c.environment)
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
func (c *console) showLists() []row {
	tallies := c.tallies()
	databases, users, servers, pools, limit := map[string]bool{}, map[string]bool{}, 0, 0, 0
	for _, t := range tallies {
		databases[t.Database.Name] = true
		servers += t.Status.Open
		limit += t.Status.Limit
		pools += len(t.Roles)
		for _, r := range t.Roles {
			users[r.Role] = true
		}
	}
	clients := c.home.count()
	return []row{
		{"databases", len(databases) + 1}, {"users", len(users) + 1}, {"peers", 0}, {"pools", pools + 1}, {"peer_pools", 0},
		{"free_clients", max(c.home.cfg.Console.MaxClients-clients, 0)}, {"used_clients", clients}, {"login_clients", 0},
		{"free_servers", max(limit-servers, 0)}, {"used_servers", servers},
		{"dns_names", 0}, {"dns_zones", 0}, {"dns_queries", 0}, {"dns_pending", 0},
	}
}

// showMem shows the process's memory in blocks of 1 KiB.
func (c *console) showMem() []row {
	const block = 1 << 10
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) int { return int(samples[i].Value.Uint64()) }
	heap, free, stacks := value(0), value(1), value(2)
	return []row{
		{"heap", block, heap / block, free / block, heap + free},
		{"stacks", block, stacks / block, 0, stacks},
	}
}

// showConfig shows what tools look for, under PgBouncer's names and in its units. All
// else is in the cluster's configuration.
func (c *console) showConfig() []row {
	seconds := func(d time.Duration) string { return fmt.Sprint(int(d / time.Second)) }
	waits := map[string]bool{}
	wait := armor.DefaultQueryWait
	for _, t := range c.tallies() {
		if t.Config.QueryWait > 0 {
			wait = t.Config.QueryWait
		}
		waits[wait.String()] = true
	}
	if len(waits) > 1 { // each pool has its own
		wait = armor.DefaultQueryWait
	}
	keys := [][3]string{
		{"admin_users", armor.ConsoleAdmin, ""},
		{"auth_type", "cert", "md5"},
		{"cancel_wait_timeout", "10", "10"},
		{"client_login_timeout", seconds(c.home.cfg.StartupTimeout), "60"},
		{"client_tls_sslmode", "verify-full", "disable"},
		{"default_pool_size", "0", "20"},
		{"disable_pqexec", "0", "0"},
		{"job_name", "armord", "pgbouncer"},
		{"listen_backlog", "128", "128"},
		{"log_connections", "1", "1"},
		{"log_disconnections", "1", "1"},
		{"log_pooler_errors", "1", "1"},
		{"log_stats", "0", "1"},
		{"max_client_conn", fmt.Sprint(c.home.cfg.Console.MaxClients), "100"},
		{"max_db_connections", "0", "0"},
		{"max_packet_size", "2147483647", "2147483647"},
		{"max_prepared_statements", "200", "200"},
		{"max_user_connections", "0", "0"},
		{"min_pool_size", "0", "0"},
		{"pool_mode", string(armor.TransactionMode), "session"},
		{"query_wait_timeout", seconds(wait), "120"},
		{"reserve_pool_size", "0", "0"},
		{"server_connect_timeout", seconds(c.home.cfg.LoginTimeout), "15"},
		{"server_reset_query", backend.ResetQuery, backend.ResetQuery},
		{"server_reset_query_always", "0", "0"},
		{"stats_period", seconds(statsPeriod), "60"},
		{"stats_users", armor.ConsoleStats, ""},
	}
	var rows []row
	for _, k := range keys {
		rows = append(rows, row{k[0], k[1], k[2], "no"})
	}
	return rows
}
