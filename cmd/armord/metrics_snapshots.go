package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// watchSchedule shows how old the newest state is that this node has saved by itself. Without
// a schedule there is nothing to be late.
func (m *metrics) watchSchedule(s *schedule) {
	if s.cfg.Every == 0 {
		return
	}
	for result, count := range map[string]func() uint64{"saved": s.saved.Load, "failed": s.failed.Load, "unneeded": s.unneeded.Load} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "armor_snapshots_total",
			Help:        "How often this node was to save the cluster's state by its schedule; unneeded: it had not changed.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(count()) }))
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "armor_snapshot_age_seconds",
			Help: "How long ago the newest saved state of this node had all that is worth saving; -1 when there is none.",
		}, func() float64 {
			if age, known := s.age(time.Now()); known {
				return age.Seconds()
			}
			return -1
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "armor_snapshot_bytes", Help: "Size of the newest saved state of this node.",
		}, func() float64 { return float64(s.bytes.Load()) }),
	)
}
