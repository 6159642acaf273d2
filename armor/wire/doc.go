// Package wire is the one encoding of the words of package armor: a protobuf message
// for each struct, of the same name and with the same fields. The Raft log and the
// snapshot carry them strictly (Log), the API leniently (API).
//
// It knows what a word looks like, not what it means: frames, levels and authority are
// fsm's, services are rpc's.
//
// Invariant: what a build has written to the log, every later build reads as the same
// value. Field numbers and the rules by which a value that holds nothing is left out
// are therefore for ever.
package wire
