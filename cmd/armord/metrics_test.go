package main

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
	"github.com/armordb/armordb/pooler/console"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/tlsedge"
)

func TestMetricsTellTheStatus(t *testing.T) {
	status := armor.NodeStatus{Role: "leader", Term: 3, Divergences: 2, Revision: 42, Sessions: 7, FreshAge: -1, ClockSkew: -1500 * time.Millisecond,
		Pools: []armor.PoolStatus{{Pool: "dev/orders", Limit: 6, Open: 4, Idle: 1, Waiting: 2}, {Pool: "dev/other"}},
		Certificates: []armor.HeldCertificate{{Kind: armor.HeldServer, NotAfter: time.Unix(7, 0)}, {Kind: armor.HeldClient, Name: "pg", NotAfter: time.Unix(42, 0)},
			{Kind: armor.HeldCA, Name: "gone", Fault: "its file is missing"}},
		Withheld: []armor.Withheld{{Pool: "dev/orders", Node: "n3", Count: 2}, {Pool: "dev/orders", Node: "n4", Count: 3}}}
	m := newMetrics(func() armor.NodeStatus { return status })
	m.denials.WithLabelValues("revoked").Inc()
	m.handshake.Observe((3 * time.Millisecond).Seconds())
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"armor_build_info{", "armor_sessions 7", "armor_trust_freshness_seconds -1", "armor_clock_skew_seconds -1.5",
		"armor_policy_applied_index 42",
		"armor_raft_is_leader 1", "armor_raft_term 3", "armor_divergence_total 2",
		`armor_pool_limit{pool="dev/orders"} 6`, `armor_pool_waiting{pool="dev/orders"} 2`,
		`armor_pool_share_withheld{pool="dev/orders"} 5`, `armor_pool_share_withheld{pool="dev/other"} 0`,
		`armor_denials_total{reason="revoked"} 1`, "armor_handshake_duration_seconds_count 1",
		`armor_secret_expiry_timestamp_seconds{kind="client",secret="pg"} 42`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
	if strings.Contains(scrape.Body.String(), `secret="gone"`) {
		t.Error("a secret that is missing has an end")
	}
}

func TestHooksMoveTheCounters(t *testing.T) {
	m := newMetrics(func() armor.NodeStatus { return armor.NodeStatus{} })
	edge, pools := m.edgeHooks(), m.poolerHooks()
	edge.Handshake(tlsedge.OutcomeProven, time.Millisecond)
	edge.Handshake(tlsedge.OutcomeAlert, time.Millisecond)
	edge.Denied(armor.ReasonRole)
	edge.Cut(armor.ReasonRevoked)
	edge.Enforced(7, 1, time.Millisecond)
	edge.Panicked()
	pools.QueryWait("dev/orders")(time.Millisecond)
	pools.ServerLogin("dev/orders", time.Millisecond, errors.New("no"))
	pools.Password("channel_binding")
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`armor_connections_total{reason="",result="proven"} 1`, `armor_connections_total{reason="",result="alert"} 1`,
		`armor_connections_total{reason="role",result="denied"} 1`, `armor_connections_total{reason="revoked",result="cut"} 1`,
		`armor_denials_total{reason="revoked"} 1`, "armor_handshake_duration_seconds_count 1", "armor_revocation_enforced_seconds_count 1",
		"armor_session_panics_total 1", `armor_query_wait_seconds_count{pool="dev/orders"} 1`,
		`armor_server_logins_total{pool="dev/orders",result="failed"} 1`,
		`armor_scram_total{result="channel_binding"} 1`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}

func TestPgbouncerNamesAreEmitted(t *testing.T) {
	m := newMetrics(func() armor.NodeStatus {
		return armor.NodeStatus{Pools: []armor.PoolStatus{{Pool: "production/orders", Paused: true}}}
	})
	tally := func(environment, pool string, limit int, paused bool) console.Tally {
		return console.Tally{
			Config:   armor.Pool{Name: pool, Environment: environment, Database: "orders", Mode: armor.TransactionMode},
			Database: armor.Database{Name: "orders", Environment: environment, DBName: "orders_db", Hosts: []string{"pg1:5433"}},
			Status:   armor.PoolStatus{Limit: limit, Open: 2, Paused: paused},
			Totals:   console.Totals{Counts: core.Counts{Transactions: 7}, Lent: 1500 * time.Millisecond},
			Roles:    []console.RoleTally{{Role: "rw", ClientsActive: 3, Active: 1, Idle: 1, MaxWait: 250 * time.Millisecond}},
		}
	}
	m.registry.MustRegister(pgbouncerCollector{func() []console.Tally {
		return []console.Tally{tally("production", "orders", 5, true),
			tally("production", "reports", 3, false), tally("staging", "orders", 2, true)}
	}, 100})
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	labels := `{database="orders_db",environment="production",force_user="",host="pg1",name="orders",pool_mode="transaction",port="5433"}`
	for _, want := range []string{
		"pgbouncer_up 1", `pgbouncer_version_info{version="Armor devel"} 1`, "pgbouncer_databases_pool_size" + labels +
			" 8", "pgbouncer_databases_paused" + labels + " 0",
		`pgbouncer_pools_client_active_connections{database="orders",environment="production",user="rw"} 6`,
		`pgbouncer_pools_client_maxwait_seconds{database="orders",environment="production",user="rw"} 0.25`,
		`pgbouncer_stats_totals_sql_transactions_pooled_total{database="orders",environment="production"} 14`,
		`pgbouncer_stats_totals_server_in_transaction_seconds_total{database="orders",environment="staging"} 1.5`,
		"pgbouncer_databases 2", "pgbouncer_users 1", "pgbouncer_free_clients 91", "pgbouncer_free_servers 4",
		"pgbouncer_config_max_client_connections 100",
		`armor_pool_paused{pool="production/orders"} 1`, `armor_pool_disabled{pool="production/orders"} 0`,
	} {
		if !strings.Contains(scrape.Body.String(), want+"\n") {
			t.Errorf("%q is not in the metrics:\n%s", want, scrape.Body)
		}
	}
}

// TestDoorsHaveTheirMetricsFromTheStart, before any port is open.
func TestDoorsHaveTheirMetricsFromTheStart(t *testing.T) {
	m := newMetrics(func() armor.NodeStatus { return armor.NodeStatus{} })
	m.registry.MustRegister(doorsCollector{func() map[string]door.Counts {
		return map[string]door.Counts{portPeer: {Open: 3, Evicted: 2, Refused: 1}}
	}})
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`armor_unproven_connections{port="peer"} 3`, `armor_unproven_evicted_total{port="peer"} 2`, `armor_unproven_refused_total{port="peer"} 1`,
		`armor_unproven_connections{port="client"} 0`, `armor_unproven_evicted_total{port="join"} 0`,
		`armor_unproven_refused_total{port="gossip"} 0`, `armor_unproven_connections{port="ops"} 0`,
		`armor_cancel_requests_total{result="refused"} 0`, `armor_cancel_requests_total{result="limited"} 0`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}

func TestMetricsTellHowFarRotationsAre(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := &armor.State{}
	for _, r := range []armor.Rotation{
		{Environment: "dev", Phase: armor.RotationStandby, Since: now.Add(-time.Hour), Drilled: now.Add(-time.Minute)},
		{Environment: "prod", Phase: armor.RotationTaint, Since: now.Add(-time.Second), Old: armor.Digest{7}},
	} {
		armor.Rotations.Put(s, r)
	}
	m := newMetrics(func() armor.NodeStatus { return armor.NodeStatus{} })
	m.registry.MustRegister(rotationsCollector{
		state: func() *armor.State { return s }, now: func() time.Time { return now },
		sessions: func(anchor armor.Digest) int { return int(anchor[0]) },
	})
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`armor_rotation_phase{environment="dev"} 0`, `armor_rotation_phase{environment="prod"} 3`,
		`armor_rotation_phase_seconds{environment="dev"} 3600`, `armor_rotation_phase_seconds{environment="prod"} 1`,
		`armor_rotation_drill_age_seconds{environment="dev"} 60`, `armor_rotation_drill_age_seconds{environment="prod"} -1`,
		`armor_rotation_old_ca_sessions{environment="prod"} 7`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
	if strings.Contains(scrape.Body.String(), `armor_rotation_old_ca_sessions{environment="dev"}`) {
		t.Error("a rotation that is over has an old CA")
	}
}
