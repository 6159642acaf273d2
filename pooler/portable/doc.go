// Package portable drives sessions with goroutines over any net.Conn: on every
// platform, in tests' bubbles, over relayed connections.
//
// It knows how to move bytes and when to stop; what they mean is core's business.
// DESIGN.md of package pooler says who may write where.
//
// Invariant: once a cut is confirmed, no byte of the server is written to the client
// and none of the client to the server.
package portable
