package main

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/tlsedge"
)

// metrics are the node's Prometheus metrics. Counters are moved by the rooms' hooks;
// everything that NodeStatus knows is read from it when somebody asks.
type metrics struct {
	registry    *prometheus.Registry
	connections *prometheus.CounterVec
	denials     *prometheus.CounterVec
	handshake   prometheus.Histogram
	enforced    prometheus.Histogram
	queryWait   *prometheus.HistogramVec
	logins      *prometheus.CounterVec
	passwords   *prometheus.CounterVec
	lookups     *prometheus.CounterVec
	pins        *prometheus.CounterVec
	cancels     *prometheus.CounterVec
	panics      prometheus.Counter
	reload      prometheus.Gauge
}

// newMetrics registers all metrics in a registry of its own.
func newMetrics(status func() armor.NodeStatus) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_connections_total", Help: "Client connections by what became of them.",
		}, []string{"result", "reason"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_denials_total", Help: "Refusals and cuts that were told to clients, by reason.",
		}, []string{"reason"}),
		handshake: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "armor_handshake_duration_seconds", Help: "From accept to a proven identity.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		enforced: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "armor_revocation_enforced_seconds", Help: "From a new revision being in force here to every session conforming to it.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
		queryWait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "armor_query_wait_seconds", Help: "How long clients waited for a server connection.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 11),
		}, []string{"pool"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_server_logins_total", Help: "Logins to PostgreSQL by how they ended.",
		}, []string{"pool", "result"}),
		passwords: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_scram_total", Help: "Clients that were asked for their password, by what became of it.",
		}, []string{"result"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_verifier_lookups_total", Help: "Questions to PostgreSQL for what a client's password is checked by, by what it had.",
		}, []string{"result"}),
		pins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_pool_pins_total", Help: "Clients that asked to keep a server connection between transactions, by whether there was room.",
		}, []string{"pool", "result"}),
		cancels: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armor_cancel_requests_total", Help: "Cancel requests of clients, with TLS or without, by what became of them.",
		}, []string{"result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "armor_session_panics_total", Help: "Sessions that a bug has ended. Anything above 0 is worth a report.",
		}),
		reload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "armor_reload_successful", Help: "0 while the last SIGHUP could not read again all that it should; 1 before the first.",
		}),
	}
	m.reload.Set(1)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "armor_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	for _, result := range []string{tlsedge.CancelCarried, tlsedge.CancelRefused, tlsedge.CancelLimited} {
		m.cancels.WithLabelValues(result)
	}
	m.registry.MustRegister(build, m.connections, m.denials, m.handshake, m.enforced, m.queryWait, m.logins, m.passwords, m.lookups, m.pins, m.cancels,
		m.panics, m.reload,
		statusCollector{status}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// handler serves the metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// reloaded says whether all went well that was to be read again.
func (m *metrics) reloaded(well bool) { m.reload.Set(oneIf(well)) }

// watchCertificates shows when the certificates in use end.
func (m *metrics) watchCertificates(ends map[string]func() time.Time) {
	for name, end := range ends {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "armor_certificate_expiry_timestamp_seconds", Help: "When the certificate in use ends, in Unix time.",
			ConstLabels: prometheus.Labels{"certificate": name},
		}, func() float64 { return float64(end().Unix()) }))
	}
}

// edgeHooks are how the edge moves the counters.
func (m *metrics) edgeHooks() tlsedge.Hooks {
	return tlsedge.Hooks{
		Handshake: func(o tlsedge.Outcome, took time.Duration) {
			m.connections.WithLabelValues(string(o), "").Inc()
			if o == tlsedge.OutcomeProven {
				m.handshake.Observe(took.Seconds())
			}
		},
		Denied: func(reason armor.Reason) {
			m.connections.WithLabelValues("denied", string(reason)).Inc()
			m.denials.WithLabelValues(string(reason)).Inc()
		},
		Cut: func(reason armor.Reason) {
			m.connections.WithLabelValues("cut", string(reason)).Inc()
			m.denials.WithLabelValues(string(reason)).Inc()
		},
		Enforced: func(_ uint64, _ int, took time.Duration) { m.enforced.Observe(took.Seconds()) },
		Cancel:   func(result string) { m.cancels.WithLabelValues(result).Inc() },
		Panicked: m.panics.Inc,
	}
}

// poolerHooks are how the pooler does.
func (m *metrics) poolerHooks() pooler.Hooks {
	return pooler.Hooks{
		QueryWait: func(pool string) func(time.Duration) {
			observer := m.queryWait.WithLabelValues(pool)
			return func(took time.Duration) { observer.Observe(took.Seconds()) }
		},
		ServerLogin: func(pool string, _ time.Duration, err error) {
			result := "ok"
			if err != nil {
				result = "failed"
			}
			m.logins.WithLabelValues(pool, result).Inc()
		},
		Password: func(result string) { m.passwords.WithLabelValues(result).Inc() },
		Lookup:   func(result string) { m.lookups.WithLabelValues(result).Inc() },
		Pin: func(pool string, room bool) {
			result := "pinned"
			if !room {
				result = "refused"
			}
			m.pins.WithLabelValues(pool, result).Inc()
		},
	}
}

// statusCollector reads a node's status once for each scrape.
type statusCollector struct{ status func() armor.NodeStatus }

var (
	sessionsDesc  = prometheus.NewDesc("armor_sessions", "Live client sessions.", nil, nil)
	freshnessDesc = prometheus.NewDesc("armor_trust_freshness_seconds",
		"Age of the proof that this node knows every revocation; -1 when it has none.", nil, nil)
	appliedDesc  = prometheus.NewDesc("armor_policy_applied_index", "Revision in force on this node.", nil, nil)
	leaderDesc   = prometheus.NewDesc("armor_raft_is_leader", "1 on the leader.", nil, nil)
	termDesc     = prometheus.NewDesc("armor_raft_term", "Raft term.", nil, nil)
	enforcedDesc = prometheus.NewDesc("armor_raft_enforced_index", "Revision to which every session here conforms.", nil, nil)
	clockDesc    = prometheus.NewDesc("armor_clock_skew_seconds",
		"How far this node's clock is ahead of the voters' median; 0 while it has not heard of a majority of them.", nil, nil)
	divergedDesc = prometheus.NewDesc("armor_divergence_total",
		"How often this node and another were found to have different states at the same revision.", nil, nil)
	limitDesc    = prometheus.NewDesc("armor_pool_limit", "Server connections this node may have.", []string{"pool"}, nil)
	openDesc     = prometheus.NewDesc("armor_pool_open", "Server connections open or being opened.", []string{"pool"}, nil)
	idleDesc     = prometheus.NewDesc("armor_pool_idle", "Server connections lent to nobody.", []string{"pool"}, nil)
	pausedDesc   = prometheus.NewDesc("armor_pool_paused", "1 while an operator has paused the pool on this node.", []string{"pool"}, nil)
	disabledDesc = prometheus.NewDesc("armor_pool_disabled", "1 while an operator has closed the pool to new clients on this node.",
		[]string{"pool"}, nil)
	waitingDesc  = prometheus.NewDesc("armor_pool_waiting", "Clients waiting for a server connection.", []string{"pool"}, nil)
	withheldDesc = prometheus.NewDesc("armor_pool_withheld",
		"Server connections of a former life of this node that may still be open, and hold their places.", []string{"pool"}, nil)
	shareWithheldDesc = prometheus.NewDesc("armor_pool_share_withheld",
		"Server connections of the pool's budget that nobody may use before other nodes, removed ones most of all, are known to have let go.",
		[]string{"pool"}, nil)
	secretDesc = prometheus.NewDesc("armor_secret_expiry_timestamp_seconds",
		"When a certificate among this node's secrets that a pool needs ends, in Unix time; of a list of CAs the last one.",
		[]string{"secret", "kind"}, nil)
	pinnedDesc = prometheus.NewDesc("armor_pool_pinned", "Clients that keep a server connection between transactions.", []string{"pool"}, nil)
)

// Describe sends every description: the set never changes.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, freshnessDesc, appliedDesc, leaderDesc, termDesc, enforcedDesc, clockDesc,
		divergedDesc, limitDesc, openDesc, idleDesc, waitingDesc, pinnedDesc, withheldDesc, shareWithheldDesc, pausedDesc, disabledDesc, secretDesc} {
		ch <- d
	}
}

// Collect reads the status.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	fresh := -1.0
	if s.FreshAge >= 0 {
		fresh = s.FreshAge.Seconds()
	}
	leads := 0.0
	if s.Role == "leader" {
		leads = 1
	}
	gauge(sessionsDesc, float64(s.Sessions))
	gauge(freshnessDesc, fresh)
	gauge(appliedDesc, float64(s.Revision))
	gauge(enforcedDesc, float64(s.Enforced))
	gauge(clockDesc, s.ClockSkew.Seconds())
	gauge(leaderDesc, leads)
	gauge(termDesc, float64(s.Term))
	ch <- prometheus.MustNewConstMetric(divergedDesc, prometheus.CounterValue, float64(s.Divergences))
	for _, h := range s.Certificates {
		if h.Name != "" && !h.NotAfter.IsZero() {
			gauge(secretDesc, float64(h.NotAfter.Unix()), h.Name, h.Kind)
		}
	}
	withheld := map[string]int{}
	for _, w := range s.Withheld {
		withheld[w.Pool] += w.Count
	}
	for _, p := range s.Pools {
		gauge(shareWithheldDesc, float64(withheld[p.Pool]), p.Pool)
		gauge(limitDesc, float64(p.Limit), p.Pool)
		gauge(openDesc, float64(p.Open), p.Pool)
		gauge(idleDesc, float64(p.Idle), p.Pool)
		gauge(waitingDesc, float64(p.Waiting), p.Pool)
		gauge(pinnedDesc, float64(p.Pinned), p.Pool)
		gauge(withheldDesc, float64(p.Withheld), p.Pool)
		gauge(pausedDesc, oneIf(p.Paused), p.Pool)
		gauge(disabledDesc, oneIf(p.Disabled), p.Pool)
	}
}
