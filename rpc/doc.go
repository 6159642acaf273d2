// Package rpc is the API: between nodes, for operators, for nodes that ask to be
// admitted and for a node that is about to become the first of a cluster.
//
// It alone knows gRPC and the API's protobuf. Callers speak the words of package
// armor, and errors keep their kinds over the wire. It knows nothing of Raft, TLS
// listeners or sessions: the node that it serves is an interface (Node), connections
// come in already proven, and how to dial a node is somebody else's business (Dialer).
//
// Invariant: a change that may have happened is never reported as one that has not.
// Whoever asks, ErrNoQuorum and ErrUnavailable mean that nothing was changed;
// otherwise the error is ErrUncertain.
package rpc
