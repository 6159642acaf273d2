package fsm

import (
	"time"

	"github.com/armordb/armordb/armor"
)

// pruneCertificates takes out certificates that ended long ago, and what revokes these alone.
// A node that is behind with its clock is not behind by KeptAfterEnd: its idea of the time is
// at least what a majority's clocks had reached.
func (d *draft) pruneCertificates(c armor.PruneCertificates) error {
	latest := d.Time.Add(-armor.KeptAfterEnd)
	if c.EndedBefore.IsZero() || c.EndedBefore.After(latest) {
		return refuse(armor.ErrInvalid, "certificates stay in the inventory for %s after their end: name a time up to %s",
			armor.KeptAfterEnd, latest.UTC().Format(time.RFC3339))
	}
	ended := make([]armor.CertRecord, 0, armor.MaxPruned)
	for r := range d.Ended(c.EndedBefore) {
		if ended = append(ended, r); len(ended) == armor.MaxPruned {
			break
		}
	}
	for _, r := range ended {
		remove(d, armor.Inventory, r)
		alone := armor.Selector{Kind: armor.SelectCertificate, Certificate: r.Certificate.ID}
		remove(d, armor.Revoked, armor.Revocation{Selector: alone})
	}
	return nil
}
