// Package pooler lends PostgreSQL server connections to client sessions.
//
// It knows nothing of certificates or consensus: it is told which pools exist
// (Configure), how many connections each may hold (SetLimits) and whom it is
// serving (ServeConn). One connection to PostgreSQL is pooler/backend's business, what
// a client and PostgreSQL say to each other pooler/core's, moving the bytes a Driver's.
//
// Invariant: a server connection is lent to one session at a time, and goes back
// only when PostgreSQL has said that it is idle; its place in the pool is taken
// from before it is dialled until its end has been read.
package pooler
