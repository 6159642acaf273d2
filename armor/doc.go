// Package armor holds the words that Armor's rooms share: who a client is, what
// is trusted, what is revoked, who may reach which database, and how many
// server connections each node may hold.
//
// It imports the standard library only and does nothing by itself: no sockets,
// files, clocks, goroutines or randomness. Everything in it is a value or a pure
// function, so that the edge, the state machine, armorctl and the tests can ask
// the same question and get the same answer.
//
// Invariant: a State and all it holds is immutable once published. Whoever wants
// a different one builds a new value.
package armor
