package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/armordb/armordb/cluster"
)

// watchSuspicions shows what other nodes sent that an honest node does not send. Each kind
// is there from the start, so that an alert can be put on its rise.
func (m *metrics) watchSuspicions(of func() cluster.Suspicions) {
	for kind, count := range map[string]func(cluster.Suspicions) uint64{
		"freshness": func(s cluster.Suspicions) uint64 { return s.Answers },
		"report":    func(s cluster.Suspicions) uint64 { return s.Reports },
		"message":   func(s cluster.Suspicions) uint64 { return s.Messages },
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "armor_peer_refused_total",
			Help:        "What this node refused to believe of other nodes: freshness from one that does not lead, reports of what is not committed, Raft messages.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count(of())) }))
	}
}
