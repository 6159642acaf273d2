package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/armordb/armordb/pooler/console"
)

// pgbouncerCollector emits what prometheus-community's pgbouncer_exporter would, under
// the same names, so that dashboards made for it go on. There is one label more,
// environment: two of them may have databases of the same name. The client_connections
// family is left out, as its label application_name is any client's to choose.
type pgbouncerCollector struct {
	tally      func() []console.Tally
	maxClients int
}

// The families, by what they are counted for.
var (
	pgbouncerUp      = prometheus.NewDesc("pgbouncer_up", "Always 1: the pooler is the process that is asked.", nil, nil)
	pgbouncerVersion = prometheus.NewDesc("pgbouncer_version_info", "Always 1; the label says what runs.", []string{"version"}, nil)
	pgbouncerClients = prometheus.NewDesc("pgbouncer_config_max_client_connections", "Client connections that this node takes.", nil, nil)

	databaseFamilies = families("pgbouncer_databases_", []string{"environment", "name", "host", "port", "database", "force_user", "pool_mode"},
		"pool_size", "Server connections this node may have, without the reserve.",
		"reserve_pool", "Server connections of these that are opened only for clients that have waited.",
		"max_connections", "Server connections this node may have.",
		"current_connections", "Server connections open or being opened.", "paused", "1 while an operator has paused it.",
		"disabled", "1 while an operator has closed it to new clients.")
	poolFamilies = families("pgbouncer_pools_", []string{"environment", "database", "user"},
		"client_active_connections", "Clients that do not wait.", "client_waiting_connections", "Clients that wait for a server connection.",
		"client_active_cancel_connections", "Always 0.", "client_waiting_cancel_connections", "Always 0.",
		"server_active_connections", "Server connections that are lent.", "server_active_cancel_connections", "Always 0.",
		"server_being_canceled_connections", "Server connections kept back while a cancel request is under way.",
		"server_idle_connections", "Server connections that are lent to nobody.", "server_used_connections", "Always 0.",
		"server_testing_connections", "Server connections being reset or ended.", "server_login_connections", "Server connections being opened.",
		"client_maxwait_seconds", "How long the first in the queue has waited.")
	statsFamilies = families("pgbouncer_stats_totals_", []string{"environment", "database"},
		"queries_pooled_total", "Queries.",
		"queries_duration_seconds_total", "The same as server_in_transaction_seconds_total: no clock is read for a query.",
		"received_bytes_total", "Bytes from clients.", "sent_bytes_total", "Bytes from PostgreSQL.",
		"client_wait_seconds_total", "Time that clients waited for a server connection.", "sql_transactions_pooled_total", "Transactions.",
		"server_in_transaction_seconds_total", "Time that server connections were lent, sampled.",
		"client_parses_total", "Statements prepared by clients.", "server_parses_total", "Statements prepared at PostgreSQL.",
		"binds_total", "Binds.", "server_assignments_total", "Server connections lent.")
	listFamilies = families("pgbouncer_", nil, "databases", "Databases.", "users", "Roles.", "pools", "Pairs of a database and a role.",
		"free_clients", "Client connections that would still be taken.", "used_clients", "Clients of pools.", "login_clients", "Always 0.",
		"free_servers", "Server connections that could still be opened.", "used_servers", "Server connections open or being opened.")
)

// families makes descriptions of pairs of a name and a help text.
func families(prefix string, labels []string, pairs ...string) []*prometheus.Desc {
	var all []*prometheus.Desc
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, prometheus.NewDesc(prefix+pairs[i], pairs[i+1], labels, nil))
	}
	return all
}

// Describe sends every description: the set never changes.
func (pgbouncerCollector) Describe(ch chan<- *prometheus.Desc) {
	one := []*prometheus.Desc{pgbouncerUp, pgbouncerVersion, pgbouncerClients}
	for _, group := range [][]*prometheus.Desc{one, databaseFamilies, poolFamilies, statsFamilies, listFamilies} {
		for _, d := range group {
			ch <- d
		}
	}
}

// Collect counts once for each scrape.
func (c pgbouncerCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(pgbouncerUp, 1)
	gauge(pgbouncerVersion, 1, "Armor "+version)
	gauge(pgbouncerClients, float64(c.maxClients))
	tallies := c.tally()
	databases, roles := console.SumDatabases(tallies), console.SumConfiguredRoles(tallies)
	for _, d := range databases {
		host, port := d.Host()
		labels := []string{d.First.Environment, d.Database.Name, host, strconv.Itoa(port), d.ServerName(), "", string(d.First.Mode)}
		for i, v := range databaseNumbers(d) {
			gauge(databaseFamilies[i], v, labels...)
		}
		for i, v := range statsNumbers(d.Totals) {
			ch <- prometheus.MustNewConstMetric(statsFamilies[i], prometheus.CounterValue, v, d.First.Environment, d.Database.Name)
		}
	}
	for _, r := range roles {
		for i, v := range poolNumbers(r) {
			gauge(poolFamilies[i], v, r.Environment, r.Database, r.Role)
		}
	}
	n := console.Count(databases, roles)
	for i, v := range []int{n.Databases, n.Users, n.Pools, max(c.maxClients-n.Clients, 0), n.Clients, 0, n.FreeServers, n.Servers} {
		gauge(listFamilies[i], float64(v))
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// databaseNumbers are in the order of databaseFamilies.
func databaseNumbers(d console.DatabaseSum) []float64 {
	return []float64{float64(d.Limit - d.Reserve), float64(d.Reserve), float64(d.Limit),
		float64(d.Open), oneIf(d.Paused), oneIf(d.Disabled)}
}

// poolNumbers are in the order of poolFamilies.
func poolNumbers(r console.RoleSum) []float64 {
	return []float64{float64(r.ClientsActive), float64(r.ClientsWaiting), 0, 0,
		float64(r.Active), 0, float64(r.Canceled), float64(r.Idle), 0,
		float64(r.Tested), float64(r.Login), r.MaxWait.Seconds()}
}

// statsNumbers are in the order of statsFamilies.
func statsNumbers(t console.Totals) []float64 {
	return []float64{float64(t.Queries), t.Lent.Seconds(), float64(t.Received), float64(t.Sent),
		t.Waited.Seconds(), float64(t.Transactions), t.Lent.Seconds(),
		float64(t.ClientParses), float64(t.ServerParses), float64(t.Binds), float64(t.Assignments)}
}
