package armor

import "time"

// RateError is the bound ρ on the difference in rate between the boot-time clocks
// of any two nodes that our promises rest on.
const RateError = 0.01

// Moment is one reading of the clocks that leases are measured on. A driver takes one
// for each batch of bytes, after it has waited and before it forwards any: reading
// clocks for every message would cost more than looking at it.
type Moment struct {
	Boot time.Duration // CLOCK_BOOTTIME
	Wall time.Time
}

// Freshness is the leader's answer to a node's question "how much must I know to
// be up to date?". It is good from the moment the node *sent* the question.
type Freshness struct {
	Term  uint64
	Index uint64        // the node is fresh once it has applied and published this revision
	Time  time.Time     // the leader's wall clock when it answered
	Bound time.Duration // longest T_live that any environment had: when the node has fenced itself at the latest
	// Differs says that the leader's history or state at the asker's revision is another:
	// then nothing is granted, and Mark is the leader's.
	Differs bool
	Mark    Mark
	// Copy says that another process serves as the asker, and has gone on since the asker
	// came: the asker's data directory is a copy, and it has to end.
	Copy bool
}

// Mark is where one history stands after a revision: the digest of all entries that led
// to it and of the state that they led to. Nodes that have applied the same revision have
// the same mark, or one of them is wrong.
type Mark struct {
	Revision uint64
	Chain    Digest
	State    Digest
}

// IsZero reports whether the mark says nothing: it is of a node that has applied nothing,
// or of a release that does not say.
func (m Mark) IsZero() bool { return m == Mark{} }

// Attestation is a node's answer to the question what it knows of a revision.
type Attestation struct {
	// Mark is the node's at that revision; zero when it has not applied it yet, or so long
	// ago that it does not know any more.
	Mark Mark
	// LastIndex and LastTerm are of the last entry in the node's log.
	LastIndex, LastTerm uint64
}

// Renewal is a node's question, and its report.
type Renewal struct {
	Node  NodeID
	Epoch uint64 // random, new with each start of the process
	// Succeeds is the epoch of the node's former life when it can prove that life
	// over: same data directory, same boot of the same machine, and the lock is ours.
	Succeeds uint64
	Applied  uint64 // last revision applied and published
	Mark     Mark   // where that revision stands; zero: the node is of a release that does not say
	Enforced uint64 // last revision to which every session here conforms
	Closed   int    // sessions closed by enforcing it
	// Held is, per pool key, how many server connections are open or being opened,
	// with the revision of the shares they respect.
	Held     map[string]int
	HeldAt   uint64
	Draining bool
	// Serving is true once the node takes clients: before, it is not counted on.
	Serving bool
	// Leased is true while this life still holds a running grant of any leader's.
	Leased bool
	// Ended is true in the last word of a life: it serves nobody and never will again.
	Ended bool
	// Level is the latest level of the log that the node applies; zero: it is of a
	// release that does not say, which is level 3.
	Level uint32
	// Backends are the server connections that the node has, told while a removed node's
	// share is withheld: whatever else PostgreSQL has may be that node's.
	Backends []HostBackends
	// Uses are those by which trust anchors have let clients in here that the state does not know
	// of yet, at most MaxUsesAtOnce.
	Uses []Use
	// Where the node can be reached now; the leader records what has changed.
	PeerAddress, ClientAddress, OpsAddress string
}

// HostBackends are server processes of PostgreSQL on one host, which is named as in the
// database's configuration.
type HostBackends struct {
	Host string
	PIDs []uint32 // ascending
}

// Ballot is one node's word on who leads in a term. A majority of the voters that names
// one node is the proof that this node was elected.
type Ballot struct {
	Term uint64
	// Leader is whom the node voted for in the term or, by such a proof, takes for its
	// leader. Empty: neither.
	Leader NodeID
	// Successor is the node to which this one, leading, is handing its office over.
	Successor NodeID
	// Unsaid is true of a node whose release does not answer the question.
	Unsaid bool
}

// NodeEnforcement is what became of one node when a revision was to be enforced.
type NodeEnforcement struct {
	Node     NodeID
	Enforced bool
	After    time.Duration // from commit to the node's confirmation
	Closed   int           // sessions it closed
	// FencedBy, for a node that has not confirmed, is the instant by the leader's
	// wall clock after which it serves nobody until it has caught up.
	FencedBy time.Time
}

// Enforcement is the cluster's answer to a change that takes access away.
type Enforcement struct {
	Revision    uint64
	Term        uint64
	CommittedAt time.Time
	Nodes       []NodeEnforcement
	// Complete is true once every node has confirmed or fenced itself.
	Complete bool
}
