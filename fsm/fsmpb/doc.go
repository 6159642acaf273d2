// Package fsmpb is what frames the entries of the Raft log, the parts of a snapshot and a saved state,
// generated from fsm.proto and saved.proto.
//
// It knows nothing of what they carry: that is armor/wire's. Nothing but fsm and fsm/saved uses
// it.
//
// Invariant: a field keeps its number and its meaning for as long as a log, a snapshot or a saved state
// may hold it.
package fsmpb
