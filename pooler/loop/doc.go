// Package loop drives sessions with event loops: one goroutine moves the bytes of
// thousands of clients, with one system call for each thing that must cross into the
// kernel (docs/decisions, PERFORMANCE: a goroutine for each client costs twice the
// CPU).
//
// It knows sockets and TLS records; what the bytes mean is core's business. Linux
// only; pooler/portable does the same anywhere else.
//
// Invariant: a file descriptor is touched by one owner at a time: the loop while it
// drives the connection, the pooler's goroutines otherwise.
package loop
