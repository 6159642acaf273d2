// Package console is what PgBouncer's tools see of a node: clients of the databases
// `pgbouncer` and `armor`, who talk to the node itself.
//
// It parses their commands, answers in PgBouncer's tables and words, and makes the sums
// behind them, which the metrics under PgBouncer's names show too. It lends nothing and
// keeps no books: what there is, and what can be moved, it asks a Pooler for.
//
// Invariant: a client sees and moves what belongs to its own environment, and no byte is
// written to it once its session has ended but why.
package console
