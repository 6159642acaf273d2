package armor

import (
	"fmt"
	"slices"
	"time"
)

// RotationPhase is how far the clients of an environment have been taken from one CA to another.
//
//	standby ──▶ staged ──▶ issuing ──▶ taint ──▶ shadow-distrust ──▶ distrusted ──▶ standby
//	   ▲          │           │          │            │    ▲              │
//	   └──────────┴───────────┴──────────┴────────────┘    └──────────────┘
//
// Each phase is safe beside those next to it: while some nodes are in the one and some in the
// other, every client that the later one lets in is let in by both.
type RotationPhase string

// The phases in their order.
const (
	RotationStandby    RotationPhase = "standby"         // nothing is going on
	RotationStaged     RotationPhase = "staged"          // both CAs are trusted, and certificates come from the old one
	RotationIssuing    RotationPhase = "issuing"         // they come from the new one
	RotationTaint      RotationPhase = "taint"           // whoever has one of the old CA is to renew it, however long it is good
	RotationShadow     RotationPhase = "shadow-distrust" // the old CA still lets in, and whom it does is held against it
	RotationDistrusted RotationPhase = "distrusted"      // the old CA lets nobody in; it can be taken back
)

// RotationPhases returns all phases, from one standby to the next.
func RotationPhases() []RotationPhase {
	return []RotationPhase{RotationStandby, RotationStaged, RotationIssuing, RotationTaint, RotationShadow, RotationDistrusted}
}

// Number counts the phases from standby, which is 0, as what is none of them is.
func (p RotationPhase) Number() int { return max(0, slices.Index(RotationPhases(), p)) }

// Next is the phase that follows, standby behind the last.
func (p RotationPhase) Next() RotationPhase {
	all := RotationPhases()
	return all[(p.Number()+1)%len(all)]
}

// Rotation takes the clients of one environment from one trust anchor to another. An environment
// has one at most, and of the last one the row stays, in standby.
type Rotation struct {
	Environment string
	Old, New    Digest // fingerprints of the trust anchors
	Phase       RotationPhase
	// Revision began the phase, and Since is log time then. Who moves the rotation on names the
	// revision, so that of two who do one is refused.
	Revision uint64
	Since    time.Time
	// Issuing is log time when certificates began to come from New; zero: they do not yet.
	Issuing time.Time
	// Watch is how long nobody must have been let in by Old, in shadow-distrust, before it is distrusted.
	Watch time.Duration
	// Spared are identities that nobody waits for.
	Spared []Pattern
	// Compromised: Old's key is in wrong hands, and it is not trusted again.
	Compromised bool
	Drill       bool // one for practice, with CAs of its own
	RolledBack  bool // in standby: that is how it ended
	// Drilled is log time at the end of the environment's last drill that went through.
	Drilled time.Time
}

// Key is the rotation's key in State.Rotations.
func (r Rotation) Key() string { return r.Environment }

// Active reports whether the rotation is under way.
func (r Rotation) Active() bool { return r.Phase != "" && r.Phase != RotationStandby }

// rotationFrom is the rotation that leads away from an anchor: the one under way, or one that may begin.
func (s *State) rotationFrom(old TrustAnchor) Rotation {
	if r, found := s.Rotations.Get(old.Environment); found && r.Active() && r.Old == old.Certificate.Fingerprint {
		return r
	}
	return Rotation{Environment: old.Environment, Old: old.Certificate.Fingerprint}
}

// Spares reports whether nobody waits for an identity.
func (r Rotation) Spares(id Identity) bool {
	return slices.ContainsFunc(r.Spared, func(p Pattern) bool { return p.Matches(id) })
}

// Bounds of a rotation.
const (
	MaxSpared        = 200
	MaxRotationWatch = 400 * 24 * time.Hour
)

// RotationMove is what a change of phase is.
type RotationMove int

// The moves that there are. From distrusted RollBack leads to shadow-distrust, so that the old CA
// lets in again, and from all others to standby.
const (
	NoMove   RotationMove = iota
	Advance               // to the next phase
	Finish                // from distrusted to standby, for good
	RollBack              // towards the CA that there was
	Cut                   // to distrusted from any phase, whoever depends on the old CA
)

// Move says which move leads from the rotation's phase to another; NoMove: none does.
func (r Rotation) Move(to RotationPhase, force bool) RotationMove {
	switch {
	case !r.Active():
		return NoMove
	case r.Phase == RotationDistrusted && to == RotationStandby:
		return Finish
	case r.Phase == RotationDistrusted && to == RotationShadow, to == RotationStandby:
		return RollBack
	case force && to == RotationDistrusted && r.Phase != RotationDistrusted:
		return Cut
	case to == r.Phase.Next():
		return Advance
	}
	return NoMove
}

// Issuer says which trust anchor an environment's certificates have to come from while it is being
// rotated, and which they must not come from: the fingerprints of both, and false when there is no
// rotation.
func (r Rotation) Issuer() (from, not Digest, rotating bool) {
	switch r.Phase {
	case RotationStaged:
		return r.Old, r.New, true
	case RotationIssuing, RotationTaint, RotationShadow, RotationDistrusted:
		return r.New, r.Old, true
	}
	return Digest{}, Digest{}, false
}

// Hindrances are what stands between a rotation and its next phase, as far as the state shows it.
// Whether every node has the present phase in force only the leader knows.
type Hindrances struct {
	// Certificates are registered ones of the old CA that are good, and that none has replaced.
	Certificates []CertRecord
	// Uses are those by which the old CA has let somebody in since the phase began.
	Uses []Use
	// More: there are more of either than were looked for.
	More bool
	// Wait is how long the phase has to go on.
	Wait time.Duration
	// Blind: more uses were reported than are remembered, so that there may be some of the old CA.
	Blind bool
	// Unusable says why the new CA vouches for nobody; empty: it does.
	Unusable string
}

// None reports whether nothing stands in the way.
func (h Hindrances) None() bool {
	return len(h.Certificates)+len(h.Uses) == 0 && h.Wait == 0 && !h.Blind && h.Unusable == ""
}

// HindrancesOf returns what stands between a rotation and its next phase at a time, with at most
// most certificates and uses.
func (s *State) HindrancesOf(r Rotation, at time.Time, most int) Hindrances {
	var h Hindrances
	next := r.Phase.Next()
	if next == RotationStandby {
		return h
	}
	h.Unusable = s.AnchorUnusable(r.New, at)
	if next != RotationShadow && next != RotationDistrusted {
		return h
	}
	h.Certificates, h.More = s.Dependents(r, at, most)
	if next == RotationShadow {
		return h
	}
	if end := r.Since.Add(r.Watch); at.Before(end) {
		h.Wait = end.Sub(at)
	}
	h.Blind = s.Uses.Len() >= MaxUses
	for _, use := range s.Uses.Prefixed(r.Old.String()) {
		if !use.Seen.After(r.Since) || r.Spares(use.Identity) {
			continue
		}
		if len(h.Uses) == most {
			h.More = true
			break
		}
		h.Uses = append(h.Uses, use)
	}
	return h
}

// AnchorUnusable says why a trust anchor lets nobody in; empty: it may.
func (s *State) AnchorUnusable(fingerprint Digest, at time.Time) string {
	a, found := s.Anchors.Get(fingerprint.String())
	if !found {
		return "it is no trust anchor"
	}
	if r, revoked := s.RevokesCA(a.Certificate); revoked {
		return fmt.Sprintf("%s is revoked", r.Selector)
	}
	switch {
	case a.Distrusted:
		return "it is distrusted"
	case at.After(a.Certificate.NotAfter):
		return "it ended at " + a.Certificate.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// Dependents returns the certificates that a rotation waits for at a time, at most most, and whether
// there are more: registered ones that only the old CA vouches for, that are good and that none has
// replaced, those of each issuer by their ends. Who is spared is none of them.
func (s *State) Dependents(r Rotation, at time.Time, most int) (found []CertRecord, more bool) {
	old, _ := s.Anchors.Get(r.Old.String())
	looked := 0
	for issuer := range s.Orders.issuers() {
		if !s.vouchesBelow(issuer, old) {
			continue
		}
		for row := range s.Orders.pending(issuer, at) {
			if looked++; looked > maxLooked {
				return found, true
			}
			if row.Environment != r.Environment || r.Spares(row.Certificate.Identity) || !s.onlyBy(old, r, row) || s.revoked(row.Certificate) {
				continue
			}
			if len(found) == most {
				return found, true
			}
			found = append(found, *row)
		}
	}
	return found, false
}

// Unseen returns certificates of the old anchor that are good and were replaced, and whose identity
// the new one has not let in yet, as far as uses are recorded: the file may not be where it is
// read, or what reads it runs once a month.
func (s *State) Unseen(r Rotation, at time.Time, most int) (found []CertRecord, more bool) {
	old, _ := s.Anchors.Get(r.Old.String())
	looked := 0
	for row := range s.Orders.replaced(old.Certificate.Key, at) {
		if looked++; looked > maxLooked || len(found) == most {
			return found, true
		}
		seen := s.Uses.Has(Use{Anchor: r.New, Identity: row.Certificate.Identity}.Key())
		if row.Environment == r.Environment && !seen && !r.Spares(row.Certificate.Identity) && !s.revoked(row.Certificate) {
			found = append(found, *row)
		}
	}
	return found, false
}

// vouchesBelow reports whether an issuer's key may be the old anchor's or that of a CA below it: a
// CA that nobody has registered.
func (s *State) vouchesBelow(issuer Digest, old TrustAnchor) bool {
	if issuer == old.Certificate.Key {
		return true
	}
	for a := range s.Anchors.Values() {
		if a.Certificate.Key == issuer {
			return false
		}
	}
	return true
}

// onlyBy reports whether a certificate is of the old anchor. Of one that a CA below some anchor has
// signed it is not known of which: then the old one's are those from before the new one began to issue.
func (s *State) onlyBy(old TrustAnchor, r Rotation, row *CertRecord) bool {
	if row.Certificate.ID.Issuer == old.Certificate.Key {
		return true
	}
	return old.Prefix.Matches(row.Certificate.Identity) && (r.Issuing.IsZero() || !row.IssuedAt.After(r.Issuing))
}

// distrusts returns the distrusted trust anchor whose key is in a chain. It counts wherever it
// stands: nobody gets in by a certificate that another CA has made for that key.
func (s *State) distrusts(chain []Certificate) (TrustAnchor, bool) {
	for _, c := range chain {
		if fingerprint, found := s.DistrustedKeys.Get(c.Key.String()); found {
			return s.Anchors.Get(fingerprint)
		}
	}
	return TrustAnchor{}, false
}

// successor is the name of the anchor that has taken the place of another.
func (s *State) successor(old TrustAnchor) string {
	r, found := s.Rotations.Get(old.Environment)
	if !found || r.Old != old.Certificate.Fingerprint {
		return ""
	}
	a, _ := s.Anchors.Get(r.New.String())
	return a.Name
}

// outgoing reports whether an anchor is the one that a rotation leads away from.
func (s *State) outgoing(a TrustAnchor) bool {
	r, found := s.Rotations.Get(a.Environment)
	return found && r.Active() && r.Old == a.Certificate.Fingerprint
}

// index and unindex keep State.DistrustedKeys.
func (a TrustAnchor) index(s *State) {
	if a.Distrusted {
		s.DistrustedKeys = s.DistrustedKeys.With(a.Certificate.Key.String(), a.Key())
	}
}

func (a TrustAnchor) unindex(s *State) {
	if a.Distrusted {
		s.DistrustedKeys = s.DistrustedKeys.Without(a.Certificate.Key.String())
	}
}
