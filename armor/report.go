package armor

import (
	"net/netip"
	"time"
)

// SessionInfo is one live client session, as operators see it.
type SessionInfo struct {
	ID          uint64 // unique on its node
	Node        NodeID
	Certificate Certificate
	Environment string
	Source      netip.AddrPort
	Database    string // empty until the startup packet was read
	Role        string
	Pool        string
	Since       time.Time
	State       string // handshake, login, idle, active, waiting
}

// DenialRecord is what a node remembers of a refusal, for `armorctl explain ID`.
type DenialRecord struct {
	Denial   Denial
	Node     NodeID
	At       time.Time
	Facts    Facts
	Revision uint64 // of the state that decided
}

// PoolStatus is one pool on one node.
type PoolStatus struct {
	Pool     string // pool key
	Limit    int    // this node's share in force
	Open     int    // server connections open or being opened
	Idle     int
	Waiting  int    // clients waiting for one
	NotReady string // why the pool cannot be served here; empty when it can
	Paused   bool   // an operator has paused it on this node
	Disabled bool   // an operator has closed it to new clients on this node
}

// NodeStatus is a node's own word about itself.
type NodeStatus struct {
	Node          NodeID
	Version       string
	Leader        NodeID // whom it believes to lead
	Role          string // leader, follower, candidate, non-voter
	Term          uint64
	Revision      uint64 // applied and published
	Enforced      uint64
	FreshAge      time.Duration // age of its freshness proof; negative when it has none
	Sessions      int
	Draining      bool
	Pools         []PoolStatus
	Gossip        []NodeID // members that gossip sees alive
	PeerAddress   string
	ClientAddress string
	OpsAddress    string
	StartedAt     time.Time
	// Unreachable is why another node could not ask it; the rest is then empty but
	// for Node and the addresses.
	Unreachable string
}

// CancelKey is what a client sends to cancel a query: BackendKeyData's process id
// and secret (PostgreSQL, "Canceling Requests in Progress"). The node that made it
// is in it.
type CancelKey struct {
	PID    uint32
	Secret uint32
}

// Session mode puts the node into the secret's top bits and keeps PostgreSQL's own
// process id; transaction mode puts it into the process id. nodeBits bounds
// Member.Index.
const nodeBits = 10

// MaxNodeIndex is the largest Member.Index.
const MaxNodeIndex = 1<<nodeBits - 1

// NewTransactionKey makes a key whose process id names the node; random's bits fill
// the rest. The process id is never zero or negative as an int32.
func NewTransactionKey(node uint16, random uint64) CancelKey {
	pid := uint32(node)<<(31-nodeBits) | uint32(random>>32)&(1<<(31-nodeBits)-1)
	return CancelKey{PID: pid, Secret: uint32(random)}
}

// NewSessionKey makes a key that keeps PostgreSQL's process id.
func NewSessionKey(node uint16, pid uint32, random uint64) CancelKey {
	return CancelKey{PID: pid, Secret: uint32(node)<<(32-nodeBits) | uint32(random)&(1<<(32-nodeBits)-1)}
}

// Nodes returns the two node indexes that a key may name; only the node that made it
// knows which of them is meant, so a cancel is asked of both.
func (k CancelKey) Nodes() (transaction, session uint16) {
	return uint16(k.PID >> (31 - nodeBits) & MaxNodeIndex), uint16(k.Secret >> (32 - nodeBits))
}
