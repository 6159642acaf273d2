package armor

import "time"

// State is one immutable version of all that the cluster has agreed on. The state
// machine makes and publishes them; everyone else reads. Deciding anything means
// loading one State and asking only that one: its Revision says how much it knows.
//
// A state is changed before it is published, through its tables (TableOf.Put, Remove):
// they keep with the rows what follows from them, and Changed.
type State struct {
	// Revision is the Raft index of the last command applied.
	Revision uint64
	// Time is the log's own clock: the latest ProposedAt so far. Expiry of tokens
	// and requests is judged by it, so that all nodes judge alike.
	Time time.Time
	// Changed says what the latest revisions were about. It is this node's own: how it
	// came to the state, not what the state is.
	Changed Changes

	Cluster      Cluster
	Environments Table[Environment]       // by name
	Anchors      Table[TrustAnchor]       // by fingerprint
	Inventory    Table[CertRecord]        // by fingerprint
	Revocations  Revocations              // by Selector.SelectorKey
	Identities   Table[IdentityConfig]    // by ObjectKey(environment, name)
	Databases    Table[Database]          // by ObjectKey(environment, name)
	Pools        Table[Pool]              // by ObjectKey(environment, name)
	Shares       Table[Share]             // by ShareKey(pool key, node)
	Members      Table[Member]            // by id
	Tombstones   Table[Tombstone]         // by id
	Tokens       Table[JoinToken]         // by hash
	Joins        Table[JoinRequest]       // by node id
	Operators    Table[Operator]          // by name
	Staged       Table[StagedRevocations] // by batch and part
	Rotations    Table[Rotation]          // by environment
	Uses         Table[Use]               // by anchor and identity

	// What follows from the tables above and is kept with them.
	KeyEnvironments Index      // SPKI → environment it is bound to
	Orders          CertOrders // the inventory by end, identity, serial number and key
	Grants          Index      // ObjectKey(environment, pattern) → identity name
	DistrustedKeys  Index      // SPKI → fingerprint of the distrusted trust anchor that has it

	// NextIndex is the Index that the next member gets.
	NextIndex uint16
}

// Trust is where the state in force is read. Current never blocks; superseded is
// closed as soon as a newer state is in force, so a follower loops: take the state,
// act on it, wait for superseded. It skips versions when it is slow and still ends
// on the last one.
type Trust interface {
	// Current returns the state in force, and what is closed when it no longer is.
	Current() (s *State, superseded <-chan struct{})
}
