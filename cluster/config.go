package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// Network is how nodes reach each other. link.Link is the real one; memnet has another
// for tests in a bubble. What it hands out is proven: the other end is who Peer says.
type Network interface {
	// Route returns the listener of one protocol's incoming connections.
	Route(alpn string) net.Listener
	// Dial connects to a node; the connection ends at that node or nowhere.
	Dial(ctx context.Context, node armor.NodeID, alpn string) (net.Conn, error)
	// Peer says which node an incoming connection comes from.
	Peer(c net.Conn) (armor.NodeID, error)
}

// Courier carries a node's question to another node: in armord, rpc over the link. It
// returns what the other's Node.Answer returned, NotLeaderError included.
type Courier interface {
	// Renew asks the node to for a proof of freshness.
	Renew(ctx context.Context, to armor.NodeID, q armor.Renewal) (armor.Freshness, error)
	// Ballot asks the node to who leads in a term: what its Node.Ballot returns, and Unsaid
	// when its release has no answer.
	Ballot(ctx context.Context, to armor.NodeID, term uint64) (armor.Ballot, error)
	// Clock asks the node to for its WallClock. ErrInvalid: it is of a release that does
	// not tell.
	Clock(ctx context.Context, to armor.NodeID) (time.Time, error)
	// Attest asks the node to what it knows of a revision.
	Attest(ctx context.Context, to armor.NodeID, revision uint64) (armor.Attestation, error)
}

// Holder is whoever opens server connections. SetShares passes the limits in force,
// per pool key; pools that are absent may hold nothing. After it has returned, no
// pool's count rises above its limit, and Held says what is still open or being
// opened. Neither call may block.
type Holder interface {
	// Held counts server connections per pool key, those being opened included.
	Held() map[string]int
	// SetShares puts limits in force: those of a revision.
	SetShares(revision uint64, limits map[string]int)
	// Backends are the server connections that this node has and that have logged in.
	Backends() []armor.HostBackends
	// Look asks PostgreSQL which backends there are in the roles of a pool, whoever has them.
	// An error means that there may be more. It blocks until it is answered or ctx ends.
	Look(ctx context.Context, pool string) ([]armor.HostBackends, error)
}

// Doorkeeper is whoever lets clients in. It may not block.
type Doorkeeper interface {
	// Uses are those by which trust anchors let clients in here that a state wants to know of,
	// at most armor.MaxUsesAtOnce.
	Uses(s *armor.State) []armor.Use
}

// Timings are the node's periods. The zero value of a field means its default.
type Timings struct {
	Heartbeat, Election, LeaderLease time.Duration // Raft's; 500, 500 and 250 ms
	Commit                           time.Duration // 50 ms: how late an idle follower learns of a commit that no nudge told it of
	Transport                        time.Duration // 1 s: a Raft message and its answer
	SnapshotInterval                 time.Duration // 30 s, to twice that, between two looks whether a snapshot is due
	SnapshotThreshold                uint64        // 8192 entries at most; fewer of a small state
	TrailingLogs                     uint64        // 10240 entries kept behind a snapshot
	Renew                            time.Duration // 500 ms between questions
	RenewTimeout                     time.Duration // 1 s for an answer
	Steady                           time.Duration // 3 s without a gap in its lease, serving, before a new node votes
	Chores                           time.Duration // 1 s between the leader's rounds of chores
	Clocks                           time.Duration // 2 s between the questions what time it is
	Uses                             time.Duration // 5 s between two looks at who came by which CA
	DiskStall                        time.Duration // 10 s: a write that takes longer ends the process
}

func (t Timings) withDefaults() Timings {
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&t.Heartbeat, 500 * time.Millisecond}, {&t.Election, 500 * time.Millisecond},
		{&t.LeaderLease, 250 * time.Millisecond}, {&t.Commit, 50 * time.Millisecond},
		{&t.Transport, time.Second}, {&t.SnapshotInterval, 30 * time.Second},
		{&t.Renew, 500 * time.Millisecond}, {&t.RenewTimeout, time.Second},
		{&t.Chores, time.Second}, {&t.DiskStall, 10 * time.Second},
		{&t.Clocks, 2 * time.Second}, {&t.Steady, 3 * time.Second}, {&t.Uses, 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.standard
		}
	}
	if t.SnapshotThreshold == 0 {
		t.SnapshotThreshold = 8192
	}
	if t.TrailingLogs == 0 {
		t.TrailingLogs = 10240
	}
	return t
}

// Config is what a Node is made of. Node, Network, Courier and Machine are required,
// and DataDir.
type Config struct {
	Node armor.NodeID
	// Cluster, when known (a joiner's invitation says it), must be the id of the
	// cluster whose data DataDir holds.
	Cluster string
	// DataDir holds the Raft log, its snapshots and the record of the node's former
	// life. It is made when absent, and locked while the node runs.
	DataDir string
	Machine *fsm.Machine
	Network Network
	Courier Courier
	Holder  Holder // nil: this node opens no server connections
	// Doorkeeper is nil where no clients come.
	Doorkeeper Doorkeeper
	// Seeds are the nodes that a joiner was told of. Until it has received the
	// cluster's configuration, it takes Raft's word from them only.
	Seeds []armor.NodeID
	// Gossip is nil in tests that need no gossip; then Status has no gossip view.
	Gossip *GossipConfig

	Version                                string
	PeerAddress, ClientAddress, OpsAddress string      // as advertised
	Draining                               func() bool // nil: never
	Serving                                func() bool // whether clients are taken; nil: always

	Timings Timings
	Clock   Clock // nil: the machine's
	// ClockSkew is how far this node's wall clock may be from what a majority of the
	// voters' shows while it leads. Zero: DefaultClockSkew.
	ClockSkew time.Duration
	Logger    *slog.Logger

	stores   *stores   // tests in a bubble keep the log in memory
	mistakes *mistakes // tests plant mistakes to see that they are noticed
}

// stores are the places Raft writes to.
type stores struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	dir       string // where they are; empty in memory
	close     func() error
}

// mistakes are what the mutants of our tests do wrong. Nothing outside of the
// package's tests can set one.
type mistakes struct {
	countNonvoters    bool // a confirmation counts answers of nodes that do not vote
	countStaleAnswers bool // a confirmation counts answers to messages sent before the question
	trustHeaders      bool // a Raft message is believed whatever its certificate says
	forgetTombstones  bool // a new leader does not remember removed members' leases
	inheritLate       bool // a life inherits by a grant that this leader gave it
	believeReports    bool // a report may say more than the leader knows to be possible
	believeAnybody    bool // freshness is taken from whoever answers
	believeVoters     bool // whoever votes may say that it leads
	believeTerms      bool // whoever answers may raise the term
	voteAtOnce        bool // a started voter votes before it has asked
	hearTheDead       bool // a life that has said its last word is listened to and granted leases
	leaveMute         bool // a node ends without a last word
	overwrite         bool // a leader may replace entries that were applied
	believeOneClock   bool // the validity clock follows whichever node shows the latest time, and no clock is too far off to lead
	ownClockInLog     bool // the leader's entries carry its own clock's time
	takeSnapshots     bool // a snapshot is taken whoever else has that state
	takeBack          bool // an entry that was committed is deleted when a leader says so
	trustMarks        bool // what a node says of its state is not compared
	backOff           bool // entries wait for Raft's pause, though the way is free again
	trustDisk         bool // a log entry is believed whatever its checksum says
	tellAll           bool // each of Raft's lines about a dead peer is written
	keepMum           bool // changes leave no line
	voteUnproven      bool // a new node votes before it serves
	ignoreLeases      bool // a removed node's share is looked for, and given away, before its lease is over
	explainAll        bool // whatever PostgreSQL has is taken for a member's
	replayAll         bool // snapshots are neither paced nor written at an orderly end
	rotateAhead       bool // a rotation moves on whoever has its phase in force
}

func (c Config) validate() (Config, error) {
	if _, err := armor.ParseNodeID(string(c.Node)); err != nil {
		return c, err
	}
	switch {
	case c.DataDir == "" && c.stores == nil:
		return c, fmt.Errorf("%w: a node needs a data directory", armor.ErrInvalid)
	case c.Machine == nil || c.Network == nil || c.Courier == nil:
		return c, fmt.Errorf("%w: a node needs a machine, a network and a courier", armor.ErrInvalid)
	}
	if c.Gossip != nil {
		if err := c.Gossip.validate(); err != nil {
			return c, err
		}
	}
	c.Timings = c.Timings.withDefaults()
	if c.Clock == nil {
		c.Clock = bootClock{}
	}
	if c.ClockSkew == 0 {
		c.ClockSkew = DefaultClockSkew
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Draining == nil {
		c.Draining = func() bool { return false }
	}
	if c.Serving == nil {
		c.Serving = func() bool { return true }
	}
	if c.mistakes == nil {
		c.mistakes = &mistakes{}
	}
	return c, nil
}
