package rpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// RevokeAll has a revocation of any size committed in one step: by a Revoke when it fits,
// otherwise in parts that are not in force before the last command puts all of them there.
// staged, unless it is nil, is told of each part. What is said of Submit holds for it: the
// ids of all its requests follow from the one in the options, so that a retry with the same
// id and the same selectors does once what is still to be done. An error while parts are
// staged leaves nothing in force that was not; parts that are left behind go by themselves.
func (c *Client) RevokeAll(ctx context.Context, r armor.Revoke, options SubmitOptions, staged func(done, parts int)) (Outcome, error) {
	parts := armor.StagingParts(r.Selectors)
	if len(parts) <= 1 {
		return c.Submit(ctx, r, options)
	}
	options, err := options.check()
	out := Outcome{RequestID: options.RequestID}
	if err != nil {
		return out, err
	}
	if err := checkParts(parts); err != nil {
		return out, err
	}
	for i, part := range parts {
		stage := armor.StageRevocations{Batch: options.RequestID, Part: i + 1, Selectors: part}
		if _, err := c.Submit(ctx, stage, SubmitOptions{RequestID: StepID(options.RequestID, i+1)}); err != nil {
			return out, fmt.Errorf("stage part %d of %d: %w", i+1, len(parts), err)
		}
		if staged != nil {
			staged(i+1, len(parts))
		}
	}
	return c.Submit(ctx, armor.RevokeStaged{
		Batch: options.RequestID, Parts: len(parts), Digest: armor.StagingDigest(r.Selectors), Reason: r.Reason, Comment: r.Comment,
	}, options)
}

func checkParts(parts [][]armor.Selector) error {
	if len(parts) > armor.MaxStagedParts {
		return fmt.Errorf("%w: the selectors make %d parts, and a cluster keeps %d: revoke them in several steps",
			armor.ErrInvalid, len(parts), armor.MaxStagedParts)
	}
	return nil
}

// DryRunAll asks the leader whether it would accept what RevokeAll would propose. Of a
// revocation in parts it judges each part by itself.
func (c *Client) DryRunAll(ctx context.Context, r armor.Revoke) error {
	parts := armor.StagingParts(r.Selectors)
	if len(parts) <= 1 {
		return c.DryRun(ctx, r)
	}
	if err := checkParts(parts); err != nil {
		return err
	}
	if err := c.DryRun(ctx, armor.StageRevocations{Batch: NewRequestID(), Part: 1, Selectors: parts[0]}); err != nil {
		return fmt.Errorf("stage part 1 of %d: %w", len(parts), err)
	}
	for i, part := range parts {
		r.Selectors = part
		if err := c.DryRun(ctx, r); err != nil {
			return fmt.Errorf("part %d of %d: %w", i+1, len(parts), err)
		}
	}
	return nil
}

// Preview lists the live sessions that a revocation with these selectors would cut.
func (c *Client) Preview(ctx context.Context, selectors []armor.Selector) (SessionSurvey, error) {
	parts := armor.StagingParts(selectors)
	if len(parts) <= 1 {
		return c.previewPart(ctx, selectors)
	}
	var all SessionSurvey
	for _, part := range parts {
		found, err := c.previewPart(ctx, part)
		if err != nil {
			return all, err
		}
		all.Sessions, all.Silent = append(all.Sessions, found.Sessions...), append(all.Silent, found.Silent...)
	}
	return all.once(), nil
}

func (c *Client) previewPart(ctx context.Context, selectors []armor.Selector) (SessionSurvey, error) {
	q := &armorpb.PreviewRequest{Selectors: selectorMessages(selectors)}
	return c.survey(ctx, func(ctx context.Context, api armorpb.OperatorAPIClient) (sessionStream, error) {
		return api.Preview(ctx, q)
	})
}

// once sorts what several answers say and keeps the first word on each session and node.
func (s SessionSurvey) once() SessionSurvey {
	session := func(a, b armor.SessionInfo) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID)) }
	slices.SortStableFunc(s.Sessions, session)
	s.Sessions = slices.CompactFunc(s.Sessions, func(a, b armor.SessionInfo) bool { return session(a, b) == 0 })
	slices.SortStableFunc(s.Silent, func(a, b SilentNode) int { return cmp.Compare(a.Node, b.Node) })
	s.Silent = slices.CompactFunc(s.Silent, func(a, b SilentNode) bool { return a.Node == b.Node })
	return s
}
