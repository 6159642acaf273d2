package main

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge"
)

func TestMetricsTellTheStatus(t *testing.T) {
	status := armor.NodeStatus{Role: "leader", Term: 3, Revision: 42, Sessions: 7, FreshAge: -1,
		Pools: []armor.PoolStatus{{Pool: "dev/orders", Limit: 6, Open: 4, Idle: 1, Waiting: 2}}}
	m := newMetrics(func() armor.NodeStatus { return status })
	m.denials.WithLabelValues("revoked").Inc()
	m.handshake.Observe((3 * time.Millisecond).Seconds())
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"armor_build_info{", "armor_sessions 7", "armor_trust_freshness_seconds -1", "armor_policy_applied_index 42",
		"armor_raft_is_leader 1", "armor_raft_term 3", `armor_pool_limit{pool="dev/orders"} 6`, `armor_pool_waiting{pool="dev/orders"} 2`,
		`armor_denials_total{reason="revoked"} 1`, "armor_handshake_duration_seconds_count 1",
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
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
	pools.QueryWait("dev/orders", time.Millisecond)
	pools.ServerLogin("dev/orders", time.Millisecond, errors.New("no"))
	scrape := httptest.NewRecorder()
	m.handler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`armor_connections_total{reason="",result="proven"} 1`, `armor_connections_total{reason="",result="alert"} 1`,
		`armor_connections_total{reason="role",result="denied"} 1`, `armor_connections_total{reason="revoked",result="cut"} 1`,
		`armor_denials_total{reason="revoked"} 1`, "armor_handshake_duration_seconds_count 1", "armor_revocation_enforced_seconds_count 1",
		"armor_session_panics_total 1", `armor_query_wait_seconds_count{pool="dev/orders"} 1`, `armor_server_logins_total{pool="dev/orders",result="failed"} 1`,
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("%q is not in the metrics", want)
		}
	}
}
