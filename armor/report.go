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

// Unproven is a handshake that failed before anybody had proved to hold a key: but for the
// source, all that it names is the word of whoever connected.
type Unproven struct {
	At     time.Time // the latest time
	Source netip.AddrPort
	Times  int // that this source has failed with this certificate
	Error  string
	// What the certificate said that was shown first; empty: none was.
	Subject, Issuer, Serial, Authority string
	Sent                               int    // how many certificates were shown
	Cure                               string // what an operator can do, if that can be told
	Revision                           uint64 // of the trust state that it failed by
}

// SourceRefusals is what a node remembers of one source's refusals, the latest first.
type SourceRefusals struct {
	Node     NodeID
	Denials  []DenialRecord // of clients that had proved who they were
	Unproven []Unproven     // of whoever had not
	// Unreachable is why the node could not be asked; the rest is then empty but for Node.
	Unreachable string
}

// MaxRefusals is how many refusals of each kind a node is asked for at most.
const MaxRefusals = 100

// HeldCertificate is when one of a node's own certificates ends, those among its secrets, too: it
// has names and times, and nothing of what is in the file.
type HeldCertificate struct {
	Kind      string // HeldServer, HeldClient, HeldCA
	Name      string // of the secret; empty: the node's own
	NotBefore time.Time
	NotAfter  time.Time // the earliest end of a chain, the latest of a list of CAs
	Fault     string    // why it is of no use, in a few words; the node's log has more
	Pools     []string  // keys of the pools that need it
}

// What a HeldCertificate is.
const (
	HeldServer = "server" // what clients see
	HeldClient = "client" // what PostgreSQL sees
	HeldCA     = "ca"     // what PostgreSQL is judged by
)

// MaxHeld is how many certificates a node tells of at most, those that end first; and how many
// pools of each.
const (
	MaxHeld      = 200
	MaxHeldPools = 5
)

// PoolStatus is one pool on one node.
type PoolStatus struct {
	Pool     string // pool key
	Limit    int    // this node's share in force
	Open     int    // server connections open or being opened
	Idle     int
	Waiting  int    // clients waiting for one
	Pinned   int    // clients that keep one between transactions
	Withheld int    // of Open, server connections of a former life of the node that may still be open
	NotReady string // why the pool cannot be served here; empty when it can
	Paused   bool   // an operator has paused it on this node
	Disabled bool   // an operator has closed it to new clients on this node
}

// Verification is what a node found when it recomputed all that it keeps of the cluster.
type Verification struct {
	Node NodeID
	// Mark is where the node's history stood at the revision that was asked about; zero when it
	// has not come to it in time.
	Mark Mark
	// Entries and Snapshots are how many of each it holds, and has checked.
	Entries, Snapshots int
	// Problems are what does not hold, in words; none is good.
	Problems []string
	// Unreachable is why the node could not be asked; the rest is then empty but for Node.
	Unreachable string
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
	// ClockSkew is how far the node's wall clock is ahead of the voters' median. It says
	// something only if ClockCompared: the node has heard of a majority of the voters.
	ClockSkew     time.Duration
	ClockCompared bool
	// Divergences is how often this node has found, or was told, that another has a different
	// state at the same revision.
	Divergences uint64
	// Withheld is what is kept of the pools' budgets for nodes that cannot use it. The leader
	// knows why; the others know what the state says.
	Withheld []Withheld
	// Certificates are those that the node uses and no other knows of. MoreCertificates is how many
	// there are beside.
	Certificates     []HeldCertificate
	MoreCertificates int
	// Unreachable is why another node could not ask it; the rest is then empty but
	// for Node and the addresses.
	Unreachable string
}

// VotersAnswering is how many of the voters have answered for themselves, and how many there
// are: to change anything it takes more than half of them.
func VotersAnswering(s *State, nodes []NodeStatus) (answering, of int) {
	answers := map[NodeID]bool{}
	for _, n := range nodes {
		answers[n.Node] = n.Unreachable == ""
	}
	for m := range s.Members.Values() {
		if !m.Voter {
			continue
		}
		of++
		if answers[m.ID] {
			answering++
		}
	}
	return answering, of
}
