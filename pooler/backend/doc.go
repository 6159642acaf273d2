// Package backend is one connection to PostgreSQL: it finds the host, logs in, asks and
// resets on the pooler's behalf, cancels, and ends.
//
// It alone knows pgconn. It knows no pools, so that nobody is lent a connection here, and
// no clients: what those and PostgreSQL say to each other while one is lent, core follows.
//
// Invariant: a connection that was dialled is somebody's to end, and its end is only told
// once PostgreSQL has closed it, or must have noticed by itself that it is dead.
package backend
