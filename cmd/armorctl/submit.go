package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// submit has a change committed. An error carries the request id with which it may be
// retried.
func (a *app) submit(ctx context.Context, c *rpc.Client, command armor.Command, o rpc.SubmitOptions) (rpc.Outcome, error) {
	if o.RequestID == "" {
		o.RequestID = a.globals.requestID
	}
	if o.RequestID == "" {
		o.RequestID = rpc.NewRequestID()
	}
	a.tell("request %s: %s", o.RequestID, command.Kind())
	out, err := a.commit(ctx, c, command, o)
	out.RequestID = o.RequestID
	if err != nil {
		return out, &requested{err: settled(err), id: o.RequestID}
	}
	return out, nil
}

// commit proposes a change; a revocation may be of any size.
func (a *app) commit(ctx context.Context, c *rpc.Client, command armor.Command, o rpc.SubmitOptions) (rpc.Outcome, error) {
	r, revokes := command.(armor.Revoke)
	if !revokes {
		return c.Submit(ctx, command, o)
	}
	return c.RevokeAll(ctx, r, o, func(done, parts int) {
		if done%toldParts == 0 || done == parts {
			a.say("part %d of %d is with the cluster; nothing is revoked yet", done, parts)
		}
	})
}

// toldParts is how many parts of a large revocation are told of at a time.
const toldParts = 10

// stagingPatience is how much longer a command may take that must be cut into parts.
func stagingPatience(command armor.Command) time.Duration {
	r, _ := command.(armor.Revoke)
	return time.Duration(len(armor.StagingParts(r.Selectors))/2) * time.Second
}

// madeAnew is for changes that carry a key or a secret made for them: run again, such a
// command makes another, so it is another request.
func madeAnew(err error) error {
	if !errors.Is(err, armor.ErrUncertain) {
		return err
	}
	return fault.Hinted(err, "run it again, without --request-id: what was made is thrown away, and another is made")
}

// settled makes sure that a change whose wait ended without an answer counts as
// uncertain, never as something that did not happen.
func settled(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, known := range []error{armor.ErrUncertain, armor.ErrUnconfirmed, armor.ErrNoQuorum, armor.ErrUnavailable} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", armor.ErrUncertain, err)
}

// enforcementSlack is added to the fence bound when waiting for every node.
const enforcementSlack = 5 * time.Second

// enforcementPatience is how long a change that takes access away may need until every
// node enforces it or has fenced itself: the longest T_live of any environment, with
// the clocks' rate error, and some slack.
func enforcementPatience(s *armor.State) time.Duration {
	longest := armor.DefaultFreshLive
	for e := range s.Environments.Values() {
		longest = max(longest, e.FreshLive)
	}
	return time.Duration(float64(longest)*(1+armor.RateError)) + enforcementSlack
}

// submitEnforced has a change committed and waits as asked for nodes to enforce it.
// Without --timeout the time to find a leader comes on top of the time for enforcement.
func (a *app) submitEnforced(
	ctx context.Context, c *rpc.Client, command armor.Command, wait rpc.Wait, s *armor.State,
) (rpc.Outcome, error) {
	bound := enforcementPatience(s)
	ctx, cancel := a.within(ctx, bound+patience+stagingPatience(command))
	defer cancel()
	if a.globals.timeout > 0 {
		bound = min(a.globals.timeout, time.Hour) // no node keeps a call waiting for longer
	}
	return a.submit(ctx, c, command, rpc.SubmitOptions{Wait: wait, Patience: bound})
}

// waitFlag reads --wait.
func waitFlag(s string) (rpc.Wait, error) {
	wait, err := rpc.ParseWait(s)
	if err != nil {
		return "", &fault.Usage{Err: fmt.Errorf("--wait: %w", err)}
	}
	return wait, nil
}

// changeView is the outcome of a change as -o json shows it.
type changeView struct {
	RequestID   armor.RequestID `json:"requestId"`
	Revision    uint64          `json:"revision,omitempty"`
	Term        uint64          `json:"term,omitempty"`
	Time        string          `json:"time,omitempty"`
	Repeated    bool            `json:"repeated"`
	CommittedAt string          `json:"committedAt,omitempty"`
	// Complete is true once every node enforces the change or has fenced itself; it
	// is absent when nobody waited for that.
	Complete *bool             `json:"complete,omitempty"`
	Nodes    []enforcementView `json:"nodes,omitempty"`
}

type enforcementView struct {
	Node     armor.NodeID `json:"node"`
	Enforced bool         `json:"enforced"`
	AfterMs  float64      `json:"afterMs,omitempty"` // from the commit
	Closed   int          `json:"sessionsClosed"`
	FencedBy string       `json:"fencedBy,omitempty"`
}

func viewOfChange(o rpc.Outcome) changeView {
	v := changeView{
		RequestID: o.RequestID, Revision: o.Result.Revision, Term: o.Result.Term,
		Time: stamp(o.Result.Time), Repeated: o.Result.Repeated,
	}
	if o.Enforcement == nil {
		return v
	}
	v.CommittedAt, v.Complete = stamp(o.Enforcement.CommittedAt), &o.Enforcement.Complete
	for _, n := range o.Enforcement.Nodes {
		e := enforcementView{Node: n.Node, Enforced: n.Enforced, Closed: n.Closed}
		if n.Enforced {
			e.AfterMs = milliseconds(n.After)
		} else {
			e.FencedBy = stampAfter(n.FencedBy)
		}
		v.Nodes = append(v.Nodes, e)
	}
	return v
}

// enforcementTable shows people who enforces a change since when.
func enforcementTable(e *armor.Enforcement, now time.Time) table {
	t := table{columns: []string{"node", "enforced", "after", "sessions closed"}}
	if e == nil {
		return t
	}
	for _, n := range e.Nodes {
		t.row(string(n.Node), enforcedWords(n, now), afterWords(n), fmt.Sprint(n.Closed))
	}
	return t
}

func enforcedWords(n armor.NodeEnforcement, now time.Time) string {
	switch {
	case n.Enforced:
		return "yes"
	case n.FencedBy.IsZero():
		return "unknown"
	case n.FencedBy.After(now):
		return "no: serves nobody after " + stampAfter(n.FencedBy)
	default:
		return "no: serves nobody since " + stampAfter(n.FencedBy)
	}
}

func afterWords(n armor.NodeEnforcement) string {
	if !n.Enforced {
		return ""
	}
	return fmt.Sprintf("%.1f ms", milliseconds(n.After))
}

// unconfirmed is the verdict on a committed change that not every node has confirmed.
func unconfirmed(e *armor.Enforcement) error {
	if e == nil || e.Complete {
		return nil
	}
	var open []string
	for _, n := range e.Nodes {
		if !n.Enforced {
			open = append(open, string(n.Node))
		}
	}
	return fault.Hinted(&verdict{exitUnconfirmed,
		fmt.Sprintf("committed as revision %d, but not confirmed by %s", e.Revision, strings.Join(open, ", "))},
		"the instants above say when those nodes have fenced themselves; armorctl node list shows what they enforce")
}
