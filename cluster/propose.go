package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

const (
	// enqueueTimeout is how long Raft may take to accept an entry before it is given up
	// unwritten.
	enqueueTimeout = 2 * time.Second
	// ownRequestLife is how long a request of the cluster's own stays valid.
	ownRequestLife = time.Minute
)

// Propose makes a change: on the leader only, elsewhere it is a NotLeaderError. The
// error is nil once the change is applied here; it is the Result's when the machine
// refused it; ErrUncertain when it may or may not have happened, or may yet happen:
// then the same request is to be proposed again; ErrNoQuorum when nothing can happen.
func (n *Node) Propose(ctx context.Context, r armor.Request) (armor.Result, error) {
	t, entry, err := n.checked(ctx, r)
	if err != nil {
		return armor.Result{}, err
	}
	result, err := n.commit(ctx, entry)
	if err != nil {
		return armor.Result{}, err
	}
	t.pulse.beat()
	return result, result.Err
}

// Begin checks a request and begins to commit it; its outcome is asked for later, by
// proposing it again. The error is what Propose's would be as far as is known by then.
func (n *Node) Begin(ctx context.Context, r armor.Request) error {
	t, entry, err := n.checked(ctx, r)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if !n.tasks.start(func() { n.finish(ctx, t, r, entry) }) {
		return armor.ErrShuttingDown
	}
	return nil
}

// beginTime is how long a commit that nobody waits for may take.
const beginTime = 8 * time.Second

func (n *Node) finish(ctx context.Context, t *tenure, r armor.Request, entry []byte) {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	result, err := n.commit(ctx, entry)
	if err == nil {
		t.pulse.beat()
		err = result.Err
	}
	if err != nil {
		n.cfg.Logger.Info("a change that nobody waited for failed", armor.KeyMethod, r.Command.Kind(), armor.KeyErr, err)
	}
}

// checked returns the log entry of a request that would be accepted now.
func (n *Node) checked(ctx context.Context, r armor.Request) (*tenure, []byte, error) {
	if r.DryRun {
		return nil, nil, fmt.Errorf("%w: a dry run is not proposed", armor.ErrInvalid)
	}
	t, err := n.readyTenure(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, err := n.timeToPropose(ctx, r.Command)
	if err != nil {
		return nil, nil, err
	}
	entry, err := n.machine.Check(r, now)
	if err != nil {
		return nil, nil, err
	}
	if err := n.understood(ctx, t, entry, r.Command); err != nil {
		return nil, nil, err
	}
	if err := n.leavesQuorum(t, r.Command); err != nil {
		return nil, nil, err
	}
	return t, entry, n.awaitInForce(ctx, t, r.Command)
}

// ProposeOwn proposes a command of the cluster's own, in this node's name. What is
// said of Propose holds for it, but that a retry is a new request.
func (n *Node) ProposeOwn(ctx context.Context, c armor.Command) (armor.Result, error) {
	return n.Propose(ctx, n.own(c))
}

// Validate answers whether the change would be accepted now, as far as this node knows.
func (n *Node) Validate(r armor.Request) error {
	now, known := n.agreedTime()
	if !known {
		now = n.WallClock()
	}
	entry, err := n.machine.Check(r, now)
	if err != nil {
		return err
	}
	t, err := n.tenure()
	if err != nil {
		return nil // whoever leads knows what the members apply
	}
	if _, err := n.applicable(t, entry, r.Command, true); err != nil {
		return err
	}
	if err := n.leavesQuorum(t, r.Command); err != nil {
		return err
	}
	return n.inForce(t, r.Command)
}

// commit replicates an entry and waits until it is applied here.
func (n *Node) commit(ctx context.Context, entry []byte) (armor.Result, error) {
	future := n.raft.Load().Apply(entry, enqueueTimeout)
	done := make(chan error, 1)
	if !n.tasks.start(func() { done <- future.Error() }) {
		return armor.Result{}, fmt.Errorf("%w: this node is ending", armor.ErrUncertain)
	}
	select {
	case err := <-done:
		if err != nil {
			return armor.Result{}, n.raftError(err)
		}
	case <-ctx.Done():
		return armor.Result{}, fmt.Errorf("%w: gave up waiting for the commit: %w", armor.ErrUncertain, context.Cause(ctx))
	}
	out, ok := future.Response().(outcome)
	if !ok {
		return armor.Result{}, fmt.Errorf("%w: no answer from the state machine", armor.ErrUncertain)
	}
	if out.err != nil {
		return armor.Result{}, fmt.Errorf("%w: committed, and this node cannot apply it: %w", armor.ErrUncertain, out.err)
	}
	return out.result, nil
}

// raftError says what a failed commit means. Only errors that Raft gives before it has
// written anything mean that nothing happened.
func (n *Node) raftError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: the leader's log does not accept entries", armor.ErrNoQuorum)
	default:
		return fmt.Errorf("%w: %w", armor.ErrUncertain, err)
	}
}

// own makes a request of this node's own. Where log time is ahead of every clock, it lives
// by that: the cluster keeps house until log time is mended.
func (n *Node) own(c armor.Command) armor.Request {
	var id [16]byte
	rand.Read(id[:])
	now := n.Now()
	if state, _ := n.machine.Current(); state.Time.After(now) {
		now = state.Time
	}
	return armor.Request{
		ID: armor.RequestID(hex.EncodeToString(id[:])), Principal: armor.NodePrincipal(n.cfg.Node),
		Expires: now.Add(ownRequestLife), Command: c,
	}
}

// Bootstrap makes a new cluster of this node alone. It is for the first node only, and
// once: ErrConflict when the node has a log already. It waits until Run has started.
// After a crash half-way it can be repeated.
func (n *Node) Bootstrap(ctx context.Context, b armor.Bootstrap) error {
	if b.Member.ID != n.cfg.Node {
		return fmt.Errorf("%w: node %q cannot bootstrap as %q", armor.ErrInvalid, n.cfg.Node, b.Member.ID)
	}
	select {
	case <-n.started:
	case <-n.ended:
		return armor.ErrShuttingDown
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := n.bootstrapRaft(); err != nil {
		return err
	}
	return n.bootstrapState(ctx, b)
}

func (n *Node) bootstrapRaft() error {
	r := n.raft.Load()
	if state, _ := n.machine.Current(); state.Cluster.ID != "" {
		return fmt.Errorf("%w: this node is already of cluster %s", armor.ErrConflict, state.Cluster.ID)
	}
	all := servers(r)
	if len(all) == 1 && all[0].ID == raft.ServerID(n.cfg.Node) {
		return nil // it was begun before
	}
	if len(all) > 0 {
		return fmt.Errorf("%w: this node already has a Raft configuration", armor.ErrConflict)
	}
	err := r.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.cfg.Node), Address: raft.ServerAddress(n.cfg.Node),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("%w: this node already has a Raft log", armor.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return nil
}

func (n *Node) bootstrapState(ctx context.Context, b armor.Bootstrap) error {
	for {
		_, err := n.Propose(ctx, n.own(b))
		if !errors.Is(err, armor.ErrNotLeader) {
			return err
		}
		if !sleep(ctx, n.cfg.Timings.Commit) {
			return fmt.Errorf("wait for the first leadership: %w", context.Cause(ctx))
		}
	}
}
