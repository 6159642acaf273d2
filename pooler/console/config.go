package console

import (
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/armordb/armordb/armor"
)

// showMem shows the process's memory in blocks of 1 KiB.
func (s *session) showMem() []row {
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
func (s *session) showConfig() []row {
	seconds := func(d time.Duration) string { return fmt.Sprint(int(d / time.Second)) }
	waits := map[string]bool{}
	wait := armor.DefaultQueryWait
	for _, t := range s.tallies() {
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
		{"client_login_timeout", seconds(s.console.cfg.StartupTimeout), "60"},
		{"client_tls_sslmode", "verify-full", "disable"},
		{"default_pool_size", "0", "20"},
		{"disable_pqexec", "0", "0"},
		{"job_name", "armord", "pgbouncer"},
		{"listen_backlog", "128", "128"},
		{"log_connections", "1", "1"},
		{"log_disconnections", "1", "1"},
		{"log_pooler_errors", "1", "1"},
		{"log_stats", "0", "1"},
		{"max_client_conn", fmt.Sprint(s.console.cfg.MaxClients), "100"},
		{"max_db_connections", "0", "0"},
		{"max_packet_size", "2147483647", "2147483647"},
		{"max_prepared_statements", "200", "200"},
		{"max_user_connections", "0", "0"},
		{"min_pool_size", "0", "0"},
		{"pool_mode", string(armor.TransactionMode), "session"},
		{"query_wait_timeout", seconds(wait), "120"},
		{"reserve_pool_size", "0", "0"},
		{"server_connect_timeout", seconds(s.console.cfg.LoginTimeout), "15"},
		{"server_reset_query", "DISCARD ALL", "DISCARD ALL"},
		{"server_reset_query_always", "0", "0"},
		{"stats_period", seconds(StatsPeriod), "60"},
		{"stats_users", armor.ConsoleStats, ""},
	}
	var rows []row
	for _, k := range keys {
		rows = append(rows, row{k[0], k[1], k[2], "no"})
	}
	return rows
}
