// Package chaos breaks a real cluster from outside and checks what it promised.
//
// It starts armord as processes, drives workloads through their client ports, lets a
// nemesis kill and stop nodes or the clients themselves break off, and writes everything
// that was tried and observed into a history. Checkers are pure functions from a history to violations; they know
// nothing of how the history came about, so each is tested against histories written
// by hand, good and bad.
//
// It refuses to know anything inside a node: it uses what an operator and an app use,
// the operator API, the client port, signals, and PostgreSQL's own log.
//
// Invariant: an outcome that could not be observed is recorded as unknown, and no
// checker ever counts an unknown as a success or as a failure.
package chaos
