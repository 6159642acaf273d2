package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// requestLife is how long a request stays valid: as long as the machine allows, less
// what the operator's clock may be ahead of the log's.
const requestLife = armor.RequestWindow - 5*time.Minute

// Submit signs a change and has it committed. Whatever node is asked, the leader
// decides. Within ctx it is retried with the same request id when its outcome is not
// known or no leader could be reached; that is safe, since a request is applied once.
//
// The error wraps what the state machine answered (ErrInvalid, ErrNotFound,
// ErrConflict, ErrDenied, ErrExpired, ErrExhausted, ErrRevoked); ErrNoQuorum or
// ErrUnavailable when nothing has changed; ErrUncertain, and neither of those, once
// one attempt may have landed and none has brought the outcome; and ErrUnconfirmed
// when the change is committed and WaitAll's patience ended before every node had
// confirmed: the Outcome is then complete but for that.
func (c *Client) Submit(ctx context.Context, command armor.Command, options SubmitOptions) (Outcome, error) {
	options, err := options.check()
	if err != nil {
		return Outcome{RequestID: options.RequestID}, err
	}
	out := Outcome{RequestID: options.RequestID}
	request, err := c.sign(ctx, armor.Request{ID: options.RequestID, Command: command})
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestLife)
	defer cancel()
	landed := false // once true, only an outcome can end the uncertainty
	untilOver := trying{within: c.attemptTime(options), forever: true, hopeless: func(ctx context.Context) error {
		if landed {
			return nil // something may have changed
		}
		return c.noQuorum(ctx)
	}}
	err = c.anyNode(ctx, untilOver, func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Submit(ctx, &armorpb.SubmitRequest{
			Request: request, Wait: string(options.Wait), Patience: int64(fit(ctx, options.Patience)),
		})
		if err = fromStatus(err); err == nil {
			err = out.read(reply)
		}
		landed = landed || mayHaveRun(err)
		return err
	})
	c.saw(out.Result.Revision)
	return out, settle(ctx, out, err, landed, options.Wait)
}

// attemptTime is how long one attempt may take.
func (c *Client) attemptTime(o SubmitOptions) time.Duration {
	if o.Wait == WaitAll {
		return c.cfg.Timeout + o.Patience
	}
	return c.cfg.Timeout
}

// fit shortens patience so that the answer, which says what was committed, comes
// before ctx ends.
func fit(ctx context.Context, patience time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return patience
	}
	left := time.Until(deadline)
	return max(min(patience, left-left/10), time.Millisecond)
}

// read takes an answer apart. The machine's refusal is the error; an answer that
// cannot be read leaves the outcome unknown.
func (o *Outcome) read(reply *armorpb.SubmitReply) error {
	result, err := fromMessage[armor.Result](reply.GetResult())
	if err == nil && reply.Enforcement != nil {
		var e armor.Enforcement
		e, err = fromMessage[armor.Enforcement](reply.Enforcement)
		o.Enforcement = &e
	}
	if err != nil {
		return fmt.Errorf("%w: the answer cannot be read: %v", armor.ErrUncertain, err)
	}
	o.Result = result
	return result.Err
}

// settle words how a Submit ended. An outcome has a revision; anything else cannot
// undo that an earlier attempt may have landed.
func settle(ctx context.Context, out Outcome, err error, landed bool, wait Wait) error {
	switch {
	case err == nil && wait == WaitAll && (out.Enforcement == nil || !out.Enforcement.Complete):
		return fmt.Errorf("%w: revision %d is committed", armor.ErrUnconfirmed, out.Result.Revision)
	case err == nil || out.Result.Revision != 0 || !landed:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: request %s: %w; last: %v", armor.ErrUncertain, out.RequestID, ctx.Err(), err)
	default:
		return fmt.Errorf("%w: request %s may have been carried out; last: %v", armor.ErrUncertain, out.RequestID, err)
	}
}

// DryRun asks the leader whether it would accept the change now. Nothing is changed.
// The error is what Submit's would be.
func (c *Client) DryRun(ctx context.Context, command armor.Command) error {
	request, err := c.sign(ctx, armor.Request{ID: NewRequestID(), Command: command, DryRun: true})
	if err != nil {
		return err
	}
	return c.anyNode(ctx, c.reading(), func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		_, err := api.Validate(ctx, &armorpb.ValidateRequest{Request: request})
		return err
	})
}

// sign makes the operator's request of one that names its id, its command and its purpose.
func (c *Client) sign(ctx context.Context, r armor.Request) (*armorpb.Request, error) {
	if r.Command == nil {
		return nil, fmt.Errorf("%w: no command", armor.ErrInvalid)
	}
	cluster, err := c.cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the cluster's id: %w", err)
	}
	key := c.key
	r.Principal, r.Expires = c.operator, c.signingTime().Add(requestLife).UTC()
	if c.cfg.PeerCAKey != nil {
		r.Principal, key = armor.PeerCAPrincipal, c.cfg.PeerCAKey
	}
	digest := r.SigningDigest(cluster)
	if r.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		return nil, fmt.Errorf("sign request %s: %w", r.ID, err)
	}
	return requestMessage(r)
}

// signingTime is when a request's life begins: now, or by log time where that is a little
// ahead, as it is after it was mended. No node's word makes a signature live long.
func (c *Client) signingTime() time.Time {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if ahead := c.logTime.Sub(now); ahead > 0 && ahead <= armor.RequestWindow {
		return c.logTime
	}
	return now
}

// cluster returns the cluster's id, asking for it the first time.
func (c *Client) cluster(ctx context.Context) (string, error) {
	c.mu.Lock()
	id := c.clusterID
	c.mu.Unlock()
	if id != "" {
		return id, nil
	}
	s, err := c.State(ctx, armor.Environments)
	if err != nil {
		return "", err
	}
	return s.Cluster.ID, nil
}

// elsewhere reports whether another node, or the same one later, may answer better.
func elsewhere(err error) bool {
	for _, kind := range []error{
		armor.ErrUnavailable, armor.ErrUncertain, armor.ErrNotLeader, armor.ErrNoQuorum, armor.ErrShuttingDown,
		context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
