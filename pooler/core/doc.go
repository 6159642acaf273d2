// Package core is one client's conversation with PostgreSQL, from the moment it is
// authenticated, without any I/O: bytes and events go in, bytes and wishes come
// out.
//
// It knows the protocol: where messages end, which replies are owed, whether a
// transaction is open, what is prepared where, which settings a client expects. It
// knows nothing of sockets, clocks, goroutines or TLS; a driver (pooler/portable)
// does what Output asks for. See DESIGN.md for the contract between the two.
//
// Invariant: a server connection is released only when PostgreSQL has said that it
// is idle, nothing is owed to the client, and no message to it is half sent.
package core
