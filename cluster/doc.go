// Package cluster makes the nodes one: gossip says who is there, Raft says what is
// true, the freshness lease says how much a node must know to be allowed to serve,
// and the ledger says who has enforced what.
//
// It refuses to know clients, certificates of clients, PostgreSQL and gRPC. What a
// log entry means is fsm's business; how a question travels to the leader is the
// Courier's; what a share of a pool is spent on is the Holder's.
//
// Invariant: a node whose AdmitNew or KeepLive says yes knows every revocation that
// any leader has reported as enforced, and what gossip says never decides anything.
package cluster
