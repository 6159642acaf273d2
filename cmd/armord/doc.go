// Command armord is one node of an Armor cluster: the mutual-TLS door, the pooler
// and a voter.
//
// This package wires the rooms together and decides nothing: which certificate is
// trusted, who may reach what and when a change has taken effect is said by armor,
// tlsedge, pooler and cluster. It knows the node's configuration file, the order in
// which rooms start and stop, and the HTTP listener for health and metrics.
//
// Invariant: no client is accepted before the trust state is followed, and
// trust is followed until the last client is gone.
package main
