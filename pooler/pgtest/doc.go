// Package pgtest is what tests of the pooler stand on: a real PostgreSQL in a
// temporary directory, a scripted one without I/O of its own, clients that speak the
// protocol message by message, and a buffered pipe that works in testing/synctest
// bubbles.
//
// It is for tests only and refuses to skip: without PostgreSQL's binaries it fails
// and says how to install them. It knows nothing of the pooler.
//
// Invariant: what it has started ends with the tests, also when they are killed.
package pgtest
