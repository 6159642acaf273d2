// Package fsmpb is what frames the entries of the Raft log and the parts of a snapshot,
// generated from fsm.proto.
//
// It knows nothing of what they carry: that is armor/wire's. Nothing but package fsm uses
// it.
//
// Invariant: a field keeps its number and its meaning for as long as a log or a snapshot
// may hold it.
package fsmpb
