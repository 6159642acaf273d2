package fsm

import (
	"github.com/armordb/armordb/armor"
)

const maxComment = 1024

// revoke takes access away. It never gives any back: a repeated revocation changes
// nothing, and one of the same identity only widens it.
func (d *draft) revoke(c armor.Revoke) error {
	if len(c.Selectors) == 0 {
		return refuse(armor.ErrInvalid, "the revocation names nothing")
	}
	if _, err := armor.ParseRevocationReason(string(c.Reason)); err != nil {
		return err
	}
	if err := checkText("comment", c.Comment, maxComment, false); err != nil {
		return err
	}
	before := d.strength()
	for _, s := range c.Selectors {
		if err := s.Validate(); err != nil {
			return err
		}
		d.widen(armor.Revocation{
			Selector: s, Reason: c.Reason, Comment: c.Comment, At: d.time, By: d.by, Revision: d.revision,
		})
	}
	return before.mayBecome(d.strength())
}

// widen records a revocation unless one that takes as much away is there.
func (d *draft) widen(r armor.Revocation) {
	key := r.Selector.MarshalKey()
	old, had := d.revocations.get(key)
	if had && !wider(r.Selector, old.Selector) {
		return
	}
	d.revocations.put(key, r)
}

// wider reports whether a takes more away than b, which has the same key.
func wider(a, b armor.Selector) bool {
	if b.IssuedBefore.IsZero() {
		return false
	}
	return a.IssuedBefore.IsZero() || a.IssuedBefore.After(b.IssuedBefore)
}

// strength is what keeps the cluster governable: voters whose certificates are good,
// and operators who can admit other operators.
type strength struct {
	voters, validVoters, admins int
}

func (d *draft) strength() strength {
	var s strength
	for _, m := range d.members.done().All() {
		if !m.Voter {
			continue
		}
		s.voters++
		if d.usable(m.Certificate) == nil {
			s.validVoters++
		}
	}
	for _, o := range d.operators.done().All() {
		if o.Has(armor.CAAdmin) && d.usable(o.Certificate) == nil {
			s.admins++
		}
	}
	return s
}

// mayBecome refuses a change that would leave fewer than a quorum of voters, or nobody
// to mend it. What has got lost by itself, by expiry, is no reason to refuse a change
// that takes nothing more.
func (before strength) mayBecome(after strength) error {
	quorum := after.voters/2 + 1
	if after.validVoters < quorum && after.validVoters < before.validVoters {
		return refuse(armor.ErrConflict, "that would leave %d of %d voters with a valid certificate, and the cluster needs %d: admit other nodes first", after.validVoters, after.voters, quorum)
	}
	if after.admins == 0 && before.admins > 0 {
		return refuse(armor.ErrConflict, "that would leave no operator with role %s and a valid certificate: add another one first", armor.CAAdmin)
	}
	return nil
}
