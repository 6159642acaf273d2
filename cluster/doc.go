// Package cluster makes one cluster of the nodes: gossip says who is there, Raft says
// what is true, the freshness lease says how much a node must know to be allowed to
// serve, and the leader remembers what each life of each node has enforced.
//
// It refuses to know clients and their certificates, PostgreSQL, gRPC and TLS. What a
// log entry means is fsm's business; who is at the other end of a connection is the
// Network's; how a question travels to the leader is the Courier's; what a share of a
// pool is spent on is the Holder's.
//
// Invariant: a node whose AdmitNew or KeepLive says yes knows every revocation that
// any leader has reported as enforced, and what gossip says never decides anything.
package cluster
