package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/armordb/armordb/armor"
)

// api is the node as its API sees it (rpc.Node): the cluster's member, and the rooms
// that serve clients once they are there.
type api node

func (a *api) ID() armor.NodeID                         { return armor.NodeID(a.cfg.Node) }
func (a *api) Leader() (armor.NodeID, bool)             { return a.cluster.Leader() }
func (a *api) Current() (*armor.State, <-chan struct{}) { return a.cluster.Current() }
func (a *api) Validate(r armor.Request) error           { return a.cluster.Validate(r) }

// Verify recomputes all that this node keeps of the cluster.
func (a *api) Verify(ctx context.Context, revision uint64) (armor.Verification, error) {
	return a.cluster.Verify(ctx, revision)
}

// Save writes the state with all in it that is committed now.
func (a *api) Save(ctx context.Context, by string, w io.Writer) error {
	if err := a.cluster.CatchUp(ctx); err != nil {
		return err
	}
	return (*node)(a).save(w, a.machine.Snapshot(), by)
}

// Ballot is this node's word on who leads in a term.
func (a *api) Ballot(term uint64) armor.Ballot { return a.cluster.Ballot(term) }

// Propose makes a change; on the leader only.
func (a *api) Propose(ctx context.Context, r armor.Request) (armor.Result, error) {
	return a.cluster.Propose(ctx, r)
}

// Begin begins to make a change; on the leader only.
func (a *api) Begin(ctx context.Context, r armor.Request) error { return a.cluster.Begin(ctx, r) }

// ProposeOwn makes a change of the cluster's own.
func (a *api) ProposeOwn(ctx context.Context, c armor.Command) (armor.Result, error) {
	return a.cluster.ProposeOwn(ctx, c)
}

// AwaitEnforced waits until a change is in force everywhere; on the leader only.
func (a *api) AwaitEnforced(ctx context.Context, r armor.Result) (armor.Enforcement, error) {
	return a.cluster.AwaitEnforced(ctx, r)
}

// WallClock is what this machine's clock shows.
func (a *api) WallClock() time.Time { return a.cluster.WallClock() }

// Answer answers a freshness question; on the leader only.
func (a *api) Answer(ctx context.Context, q armor.Renewal) (armor.Freshness, error) {
	return a.cluster.Answer(ctx, q)
}

// Attest is what this node knows of a revision.
func (a *api) Attest(revision uint64) (armor.Attestation, error) { return a.cluster.Attest(revision) }

// Status is what the cluster says of this node, completed by the rooms that serve clients.
func (a *api) Status() armor.NodeStatus {
	s := a.cluster.Status()
	if c := a.clients.Load(); c != nil {
		s.Sessions, s.Pools = c.edge.Count(), c.pooler.Status()
	}
	return s
}

// Sessions are the live sessions here.
func (a *api) Sessions() []armor.SessionInfo {
	if c := a.clients.Load(); c != nil {
		return c.edge.Sessions()
	}
	return nil
}

// Preview are the sessions here that revocations would end.
func (a *api) Preview(selectors []armor.Selector) []armor.SessionInfo {
	if c := a.clients.Load(); c != nil {
		return c.edge.Preview(selectors)
	}
	return nil
}

// Denial is what is remembered of a refusal here.
func (a *api) Denial(id string) (armor.DenialRecord, bool) {
	if c := a.clients.Load(); c != nil {
		return c.edge.Denial(id)
	}
	return armor.DenialRecord{}, false
}

// Order acts on a pool here.
func (a *api) Order(o armor.PoolOrder) (armor.PoolStatus, error) {
	c := a.clients.Load()
	if c == nil {
		return armor.PoolStatus{}, fmt.Errorf("%w: this node serves no clients yet", armor.ErrUnavailable)
	}
	return c.pooler.Order(o)
}

// Drain has the process end as by a signal.
func (a *api) Drain() {
	a.log.Info("an operator has this node drained", armor.KeyNode, a.cfg.Node)
	a.shutdown()
}

// Cancel cancels a query of a session here.
func (a *api) Cancel(ctx context.Context, key armor.CancelKey, plaintext bool) bool {
	c := a.clients.Load()
	return c != nil && c.pooler.Cancel(ctx, key, plaintext)
}
