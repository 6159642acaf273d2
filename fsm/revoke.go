package fsm

import (
	"maps"
	"slices"

	"github.com/armordb/armordb/armor"
)

const maxComment = 1024

// revoke takes access away. It never gives any back: a repeated revocation changes
// nothing, and one of the same identity only widens it.
func (d *draft) revoke(c armor.Revoke) error {
	if err := checkSelectors(c.Selectors); err != nil {
		return err
	}
	if _, err := armor.ParseRevocationReason(string(c.Reason)); err != nil {
		return err
	}
	if err := armor.CheckText("comment", c.Comment, maxComment, false); err != nil {
		return err
	}
	before := d.strength()
	put(d, armor.Revoked, d.widened(c)...)
	return before.mayBecome(d.strength())
}

func checkSelectors(selectors []armor.Selector) error {
	if len(selectors) == 0 {
		return refuse(armor.ErrInvalid, "the revocation names nothing")
	}
	for _, s := range selectors {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// widened are the revocations of a command that take more away than those that are there.
func (d *draft) widened(c armor.Revoke) []armor.Revocation {
	widest := make(map[armor.SelectorKey]armor.Selector, len(c.Selectors))
	for _, s := range c.Selectors {
		key := s.SelectorKey()
		old, had := widest[key]
		if !had {
			var r armor.Revocation
			r, had = d.Revocations.Get(key)
			old = r.Selector
		}
		if !had || wider(s, old) {
			widest[key] = s
		}
	}
	rows := make([]armor.Revocation, 0, len(widest))
	for _, key := range slices.Sorted(maps.Keys(widest)) {
		rows = append(rows, armor.Revocation{
			Selector: widest[key], Reason: c.Reason, Comment: c.Comment, At: d.Time, By: d.by, Revision: d.Revision,
		})
	}
	return rows
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
	for _, m := range d.Members.All() {
		if !m.Voter {
			continue
		}
		s.voters++
		if d.usable(m.Certificate) == nil {
			s.validVoters++
		}
	}
	for _, o := range d.Operators.All() {
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
		return refuse(armor.ErrConflict,
			"that would leave %d of %d voters with a valid certificate, and the cluster needs %d: admit other nodes first",
			after.validVoters, after.voters, quorum)
	}
	if after.admins == 0 && before.admins > 0 {
		return refuse(armor.ErrConflict,
			"that would leave no operator with role %s and a valid certificate: add another one first", armor.CAAdmin)
	}
	return nil
}
