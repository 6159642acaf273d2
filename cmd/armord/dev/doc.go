// Package dev runs a whole cluster on one machine for `armord dev`: node processes in front
// of one PostgreSQL, a balancer in front of them, and the keys and configuration that an
// operator would have made, all in one folder.
//
// It knows nothing inside a node: it writes configuration files, starts armord and runs
// armorctl, as an operator does. Nothing of it is for production, and `armord run` uses none of it.
//
// Invariant: every process that it has started ends before it does, or, when it is killed,
// right after it.
package dev
