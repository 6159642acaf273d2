// Package hostile is a node whose key somebody has stolen: it speaks to a cluster with that
// key, on the nodes' own port, and says whatever may do harm.
//
// It knows Raft's messages and the API between nodes as they are on the wire, and nothing
// of how nodes judge them. It finds nothing and judges nothing: what a cluster made of it is
// seen by the scenario that ran it, from outside.
//
// Invariant: whatever it sends is under the one key that it was given; it has no other
// secret of the cluster.
package hostile
