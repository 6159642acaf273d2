package rpc

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/armordb/armordb/armor"
)

// Node is what the API needs of the node that it serves.
type Node interface {
	armor.Trust
	Leadership
	Proposer
	Witness
	Switchboard
}

// Leadership says who leads. Calls do not block.
type Leadership interface {
	// ID is this node.
	ID() armor.NodeID
	// Leader is who leads, and whether it is known.
	Leader() (armor.NodeID, bool)
	// Ballot is this node's word on who leads in a term.
	Ballot(term uint64) armor.Ballot
}

// Proposer is the leader's side of a change. Elsewhere Propose, Begin, AwaitEnforced and
// Answer return *armor.NotLeaderError.
type Proposer interface {
	// Propose returns once the change is applied here or was refused; ErrUncertain when
	// it may have happened.
	Propose(ctx context.Context, r armor.Request) (armor.Result, error)
	// Begin returns once the request has been checked and its commit has begun.
	Begin(ctx context.Context, r armor.Request) error
	// ProposeOwn proposes a command of the cluster's own in this node's name.
	ProposeOwn(ctx context.Context, c armor.Command) (armor.Result, error)
	// Validate is the check that precedes a proposal, by what this node knows.
	Validate(r armor.Request) error
	// AwaitEnforced waits until every node conforms to the result. When ctx ends first,
	// the answer is incomplete and the error nil.
	AwaitEnforced(ctx context.Context, r armor.Result) (armor.Enforcement, error)
	// Answer answers a node that wants to know whether it is fresh.
	Answer(ctx context.Context, q armor.Renewal) (armor.Freshness, error)
	// WallClock is what this node's own clock shows.
	WallClock() time.Time
}

// Witness is what a node knows that no other does. Calls must not block, but Cancel, Save
// and Verify.
type Witness interface {
	// Save writes this node's state as a file that it has signed, with all in it that was
	// committed when it was called. by is the operator who asked.
	Save(ctx context.Context, by string, w io.Writer) error
	// Verify recomputes all that the node keeps of the cluster.
	Verify(ctx context.Context, revision uint64) (armor.Verification, error)
	// Status is what this node says of itself.
	Status() armor.NodeStatus
	// Attest is what this node knows of a revision; ErrUnavailable when it is not running.
	Attest(revision uint64) (armor.Attestation, error)
	// Sessions lists the sessions of this node.
	Sessions() []armor.SessionInfo
	// Preview lists those that a revocation would end.
	Preview(selectors []armor.Selector) []armor.SessionInfo
	// Denial looks up a refusal by the id that the client was told.
	Denial(id string) (armor.DenialRecord, bool)
	// Cancel reports whether the key was this node's; it returns once delivered. plaintext
	// says that the client asked without TLS.
	Cancel(ctx context.Context, key armor.CancelKey, plaintext bool) bool
}

// Switchboard is what operators switch at one node.
type Switchboard interface {
	// Order acts on a pool of this node and returns what has become of it.
	Order(o armor.PoolOrder) (armor.PoolStatus, error)
	// Drain has the node end as by SIGTERM, and does not wait for that.
	Drain()
}

// Dialer connects to a node and proves both ends; the connection's TLS handshake is
// over. The node-to-node link is one.
type Dialer interface {
	// Dial connects to a node for one protocol.
	Dial(ctx context.Context, node armor.NodeID, alpn string) (net.Conn, error)
}
