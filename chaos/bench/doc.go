// Package bench compares what work costs Armor with what it costs others: PgBouncer,
// Odyssey, PostgreSQL without a pooler, and a relay that does nothing but pass bytes.
//
// All of them stand in front of the same PostgreSQL, with the same certificates and the
// same cipher. It knows no more of a node than its client port and its process.
//
// Invariant: only numbers of the same round are compared, because the machine is shared;
// a measurement that failed is a gap that says why, never a number.
package bench
