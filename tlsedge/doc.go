// Package tlsedge is the door: who is this client, and is it still trusted?
//
// It accepts connections, speaks as much of PostgreSQL's protocol as it takes to
// get to TLS, lets the client prove possession of its certificate's key, turns the
// chain into an armor.Peer and keeps every live session under the judgement of the
// trust state: each new revision judges all of them again.
//
// It knows nothing of SQL, of server connections or of consensus. What a session
// does is the Handler's; which state is in force is armor.Trust's; whether this
// node may rely on it is Lease's.
//
// Invariant: once Reporter.Enforced(r) was called, no byte is forwarded for a
// session that the state of revision r denies, and none is admitted.
package tlsedge
