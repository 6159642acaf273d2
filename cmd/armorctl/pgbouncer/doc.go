// Package pgbouncer translates the configuration of a PgBouncer into ours: objects of
// the cluster configuration, files for the nodes' secrets, and a report of what became
// of every line.
//
// It knows texts only: no files, no network, no cluster. What it reads was written by
// others and is bounded and checked before it is used.
//
// Invariant: nothing is dropped silently. Each key that was written is in the report,
// as mapped or as not translatable.
package pgbouncer
