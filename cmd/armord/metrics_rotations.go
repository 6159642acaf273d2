package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/armordb/armordb/armor"
)

// rotationsCollector says at each scrape how far each environment's clients have been taken from one
// CA to another. An environment that was never rotated has no line.
type rotationsCollector struct {
	state func() *armor.State
	now   func() time.Time
	// sessions counts those that live here by a trust anchor.
	sessions func(anchor armor.Digest) int
}

var (
	phaseDesc = prometheus.NewDesc("armor_rotation_phase",
		"How far the CA rotation is: 0 standby, 1 staged, 2 issuing, 3 taint, 4 shadow-distrust, 5 distrusted.", []string{"environment"}, nil)
	phaseAgeDesc = prometheus.NewDesc("armor_rotation_phase_seconds", "How long the CA rotation has been in its phase.", []string{"environment"}, nil)
	oldCADesc    = prometheus.NewDesc("armor_rotation_old_ca_sessions",
		"Sessions on this node that the CA has let in which a rotation leads away from.", []string{"environment"}, nil)
	drillDesc = prometheus.NewDesc("armor_rotation_drill_age_seconds",
		"How long ago the last drill of a CA rotation went through; -1: never.", []string{"environment"}, nil)
)

// Describe sends every description: the set never changes.
func (rotationsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{phaseDesc, phaseAgeDesc, oldCADesc, drillDesc} {
		ch <- d
	}
}

// Collect looks at the state in force.
func (c rotationsCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.now()
	for r := range c.state().Rotations.Values() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, r.Environment)
		}
		drilled := -1.0
		if !r.Drilled.IsZero() {
			drilled = now.Sub(r.Drilled).Seconds()
		}
		gauge(phaseDesc, float64(r.Phase.Number()))
		gauge(phaseAgeDesc, now.Sub(r.Since).Seconds())
		gauge(drillDesc, drilled)
		if r.Active() {
			gauge(oldCADesc, float64(c.sessions(r.Old)))
		}
	}
}

// rotations is what the collector asks this node.
func (n *node) rotations() rotationsCollector {
	state := func() *armor.State { s, _ := n.cluster.Current(); return s }
	return rotationsCollector{state: state, now: n.now, sessions: func(anchor armor.Digest) int {
		if c := n.clients.Load(); c != nil {
			return c.edge.LivingBy(anchor)
		}
		return 0
	}}
}
