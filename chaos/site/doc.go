// Package site makes what chaos breaks and the benchmark measures: a throw-away PostgreSQL,
// a cluster of real armord processes in front of it, and clients with certificates.
//
// It refuses to know anything inside a node: it starts the programs, sends signals, runs
// armorctl and speaks PostgreSQL's protocol to client ports. What to do with all that is
// its callers' matter.
//
// Invariant: nothing here starts a node again by itself, so that every end and every start
// in a history is somebody's doing.
package site
