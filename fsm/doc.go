// Package fsm turns the Raft log into states: Apply takes the next entry and
// publishes the state that follows from it, the same one on every node.
//
// It refuses to know what could differ between nodes: no clock (time travels inside
// the entry), no network, files, randomness or map order, no certificates to parse.
// It does not know Raft either: it is given an index, a term and bytes.
//
// Invariant: two machines that applied the same entries hold the same state, whether
// they applied them one by one or began from a snapshot; Hash proves it.
package fsm
