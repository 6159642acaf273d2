package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// expirySoon is how far ahead status looks for certificates that end.
const expirySoon = 30 * day

// expiring are the certificates in use that end soon and have no successor.
func expiring(s *armor.State, now time.Time) []certView {
	soon := []certView{}
	for _, r := range byExpiry(s) {
		v := viewOfCert(s, r, now)
		if v.State == "valid" && endsSoon(r.Certificate, now) {
			soon = append(soon, v)
		}
	}
	return soon
}

// endsSoon reports whether it is time to issue a successor: within 30 days of the end, and
// with less than a third of its life left, so that one of 30 days is not due on its first.
func endsSoon(c armor.Certificate, now time.Time) bool {
	left := c.NotAfter.Sub(now)
	return left < expirySoon && left < c.NotAfter.Sub(c.NotBefore)/3
}

// endingOwn are the certificates of nodes and operators that end soon.
func endingOwn(s *armor.State, now time.Time) []ownCertView {
	ending := []ownCertView{}
	for m := range s.Members.Values() {
		if endsSoon(m.Certificate, now) {
			ending = append(ending, ownCertView{"node", string(m.ID), stamp(m.Certificate.NotAfter), now.After(m.Certificate.NotAfter)})
		}
	}
	for o := range s.Operators.Values() {
		if _, revoked := s.RevokesOwn(o.Certificate); !revoked && endsSoon(o.Certificate, now) {
			ending = append(ending, ownCertView{"operator", o.Name, stamp(o.Certificate.NotAfter), now.After(o.Certificate.NotAfter)})
		}
	}
	slices.SortFunc(ending, func(x, y ownCertView) int { return cmp.Compare(x.NotAfter, y.NotAfter) })
	return ending
}

// ownCertView is a certificate of the cluster's own that ends soon.
type ownCertView struct {
	Kind     string `json:"kind"` // node or operator
	Name     string `json:"name"`
	NotAfter string `json:"notAfter"`
	Ended    bool   `json:"ended"`
}

// advice is what to do about it.
func (v ownCertView) advice() string {
	word := "ends"
	if v.Ended {
		word = "ended"
	}
	if v.Kind == "node" {
		return fmt.Sprintf("%s's %s at %s: armorctl node renew %s --peer-ca DIR", v.Name, word, v.NotAfter, v.Name)
	}
	return fmt.Sprintf("%s's %s at %s: armorctl operator renew %s --peer-ca DIR", v.Name, word, v.NotAfter, v.Name)
}
