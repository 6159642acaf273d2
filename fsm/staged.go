package fsm

import (
	"github.com/armordb/armordb/armor"
)

// A batch is revoked in one step, however large it is:
//
//	stage part 1 … stage part n ──▶ revoke all n ──▶ the parts are gone
//	                      └──────── an hour passes ──▶ the parts are gone
//
// A part is checked when it is staged, so that the step at the end fails for nothing
// that a part alone could show.

// stageRevocations keeps one part of a batch. A batch is of one operator: nobody can have
// another revoke what it did not name.
func (d *draft) stageRevocations(c armor.StageRevocations) error {
	if err := checkPart(c); err != nil {
		return err
	}
	for _, p := range d.Staged.Prefixed(armor.StagedBatch(c.Batch)) {
		if p.By != d.by {
			return refuse(armor.ErrConflict, "batch %s is of operator %s: take another name for yours", c.Batch, p.By)
		}
	}
	part := armor.StagedRevocations{Batch: c.Batch, Part: c.Part, Selectors: c.Selectors, By: d.by, At: d.Time}
	if old, had := armor.Staged.Find(d.State, part); had {
		if old.At = part.At; !same(old, part) {
			return refuse(armor.ErrConflict, "part %d of batch %s was staged with other selectors", c.Part, c.Batch)
		}
		return nil
	}
	if d.Staged.Len() >= armor.MaxStagedParts {
		return refuse(armor.ErrExhausted, "%d parts are staged, and no more are kept: revoke them first, or wait until they are dropped after %s",
			d.Staged.Len(), armor.StagedLife)
	}
	put(d, armor.Staged, part)
	return nil
}

func checkPart(c armor.StageRevocations) error {
	if _, err := armor.ParseRequestID(string(c.Batch)); err != nil {
		return describe(err, "batch")
	}
	if c.Part < 1 || c.Part > armor.MaxStagedParts {
		return refuse(armor.ErrInvalid, "part %d is not one of 1 to %d", c.Part, armor.MaxStagedParts)
	}
	if size := len(armor.Canonical(c.Selectors)); size > armor.MaxStagedPart {
		return refuse(armor.ErrInvalid, "part %d has %d bytes, more than %d: make several parts of it", c.Part, size, armor.MaxStagedPart)
	}
	return checkSelectors(c.Selectors)
}

// revokeStaged revokes what a batch names, exactly as one Revoke of all of it would.
func (d *draft) revokeStaged(c armor.RevokeStaged) error {
	parts, err := d.stagedParts(c)
	if err != nil {
		return err
	}
	all := armor.Revoke{Reason: c.Reason, Comment: c.Comment}
	for _, p := range parts {
		all.Selectors = append(all.Selectors, p.Selectors...)
		remove(d, armor.Staged, p)
	}
	if digest := armor.StagingDigest(all.Selectors); digest != c.Digest {
		return refuse(armor.ErrConflict, "what batch %s names has digest %s, not %s", c.Batch, digest, c.Digest)
	}
	return d.revoke(all)
}

// stagedParts are the parts of a batch: all that the command says, and no more.
func (d *draft) stagedParts(c armor.RevokeStaged) (parts []armor.StagedRevocations, err error) {
	if _, err := armor.ParseRequestID(string(c.Batch)); err != nil {
		return nil, describe(err, "batch")
	}
	for _, p := range d.Staged.Prefixed(armor.StagedBatch(c.Batch)) {
		if p.By != d.by {
			return nil, refuse(armor.ErrDenied, "batch %s is of operator %s", c.Batch, p.By)
		}
		parts = append(parts, p)
	}
	for i := range c.Parts {
		if i >= len(parts) || parts[i].Part != i+1 {
			return nil, refuse(armor.ErrNotFound, "part %d of batch %s is not staged, or was dropped after %s: stage it again",
				i+1, c.Batch, armor.StagedLife)
		}
	}
	if len(parts) > c.Parts {
		return nil, refuse(armor.ErrConflict, "batch %s has %d parts, not %d", c.Batch, len(parts), c.Parts)
	}
	return parts, nil
}
