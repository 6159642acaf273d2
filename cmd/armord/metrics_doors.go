package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/armordb/armordb/armor/door"
)

// The ports that have a door, as metrics name them.
const (
	portClient = "client"
	portPeer   = "peer"
	portJoin   = "join" // of the peer port, for nodes that have no certificate yet
	portGossip = "gossip"
	portOps    = "ops"
)

// doorsCollector asks every port's door at each scrape. A port that is not open yet has
// seen nobody.
type doorsCollector struct{ counts func() map[string]door.Counts }

var (
	unprovenDesc = prometheus.NewDesc("armor_unproven_connections", "Connections that have not proved who they are.", []string{"port"}, nil)
	evictedDesc  = prometheus.NewDesc("armor_unproven_evicted_total",
		"Unproven connections that were closed to make room for others.", []string{"port"}, nil)
	refusedDesc = prometheus.NewDesc("armor_unproven_refused_total",
		"Unproven connections that were sent away: they said nothing in time, or there was no room. For gossip also packets.",
		[]string{"port"}, nil)
)

// Describe sends every description: the set never changes.
func (doorsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{unprovenDesc, evictedDesc, refusedDesc} {
		ch <- d
	}
}

// Collect asks the doors.
func (c doorsCollector) Collect(ch chan<- prometheus.Metric) {
	all := c.counts()
	for _, port := range []string{portClient, portPeer, portJoin, portGossip, portOps} {
		seen := all[port]
		ch <- prometheus.MustNewConstMetric(unprovenDesc, prometheus.GaugeValue, float64(seen.Open), port)
		ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(seen.Evicted), port)
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(seen.Refused), port)
	}
}

// doors are what the doors of the node's ports have seen.
func (n *node) doors() map[string]door.Counts {
	all := map[string]door.Counts{portGossip: n.cluster.GossipUnproven()}
	all[portPeer], all[portJoin] = n.link.Unproven()
	if c := n.clients.Load(); c != nil {
		all[portClient] = c.edge.Unproven()
	}
	return all
}
