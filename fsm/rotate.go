package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// startRotation begins to take an environment's clients from one trust anchor to another. Both are
// there already: to start changes nothing for anybody, but where the old one's key is out.
func (d *draft) startRotation(c armor.StartRotation) error {
	before, had := d.Rotations.Get(c.Environment)
	if had && before.Active() {
		return refuse(armor.ErrConflict, "environment %s is being rotated, and is in phase %s: finish that or roll it back first", c.Environment, before.Phase)
	}
	r := armor.Rotation{
		Environment: c.Environment, Old: c.Old, New: c.New, Phase: armor.RotationStaged, Revision: d.Revision, Since: d.Time,
		Watch: c.Watch, Compromised: c.Compromised, Drill: c.Drill, Drilled: before.Drilled,
	}
	old, successor, err := d.rotated(r)
	if err != nil {
		return err
	}
	if c.Watch < 0 || c.Watch > armor.MaxRotationWatch {
		return refuse(armor.ErrInvalid, "an old CA can be watched for 0 to %s, not %s", armor.MaxRotationWatch, c.Watch)
	}
	if r.Spared, err = spared(nil, c.Spared); err != nil {
		return err
	}
	if successor.Retired {
		successor.Retired = false
		put(d, armor.Anchors, successor)
	}
	if c.Compromised {
		r.Phase, r.Issuing = armor.RotationDistrusted, d.Time
		d.distrust(old, true)
	}
	put(d, armor.Rotations, r)
	return nil
}

// rotated finds the two anchors and checks that the one can take the other's place.
func (d *draft) rotated(r armor.Rotation) (old, successor armor.TrustAnchor, err error) {
	if err := d.environmentExists(r.Environment); err != nil {
		return old, successor, err
	}
	if old, err = d.anchorIn(r.Environment, r.Old); err != nil {
		return old, successor, err
	}
	if successor, err = d.anchorIn(r.Environment, r.New); err != nil {
		return old, successor, err
	}
	if err := d.canReplace(old, successor); err != nil {
		return old, successor, err
	}
	return old, successor, d.alone(old)
}

func (d *draft) anchorIn(environment string, fingerprint armor.Digest) (armor.TrustAnchor, error) {
	a, found := d.Anchors.Get(fingerprint.String())
	if !found || a.Environment != environment {
		return a, refuse(armor.ErrNotFound, "environment %s has no trust anchor %s: armorctl ca init or ca import brings one", environment, fingerprint.Short())
	}
	return a, nil
}

func (d *draft) canReplace(old, successor armor.TrustAnchor) error {
	unusable := d.AnchorUnusable(successor.Certificate.Fingerprint, d.Time)
	switch {
	case old.Certificate.Key == successor.Certificate.Key:
		return refuse(armor.ErrInvalid, "trust anchors %s and %s have one key: from the one to the other nothing is rotated", old.Name, successor.Name)
	case successor.Certificate.ID.Issuer == old.Certificate.Key:
		return signedBy(successor, old, armor.ErrInvalid, "take one that is not")
	case unusable != "":
		return refuse(armor.ErrInvalid, "trust anchor %s vouches for nobody: %s", successor.Name, unusable)
	case old.Distrusted:
		return refuse(armor.ErrInvalid, "trust anchor %s is distrusted already", old.Name)
	case !successor.Prefix.Covers(old.Prefix):
		return refuse(armor.ErrInvalid, "trust anchor %s vouches for %s, and not for all of %s, as %s does",
			successor.Name, successor.Prefix, old.Prefix, old.Name)
	case old.SVID && !successor.SVID:
		return refuse(armor.ErrInvalid, "trust anchor %s may vouch for servers too, and %s may not: register it with --svid", old.Name, successor.Name)
	}
	return nil
}

// alone checks that no other anchor would end with the old one.
func (d *draft) alone(old armor.TrustAnchor) error {
	for a := range d.Anchors.Values() {
		below := a.Certificate.ID.Issuer == old.Certificate.Key && a.Certificate.Key != old.Certificate.Key
		if below && d.AnchorUnusable(a.Certificate.Fingerprint, d.Time) == "" {
			return signedBy(a, old, armor.ErrConflict, "rotate or revoke it first")
		}
	}
	return nil
}

func signedBy(a, old armor.TrustAnchor, kind error, cure string) error {
	return refuse(kind, "trust anchor %s is signed by %s, and would end with it: %s", a.Name, old.Name, cure)
}

// spared adds to the identities that nobody waits for.
func spared(those, more []armor.Pattern) ([]armor.Pattern, error) {
	for _, p := range more {
		if _, err := armor.ParsePattern(string(p)); err != nil {
			return nil, describe(err, "identity to spare")
		}
	}
	all := slices.Concat(those, more)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > armor.MaxSpared {
		return nil, refuse(armor.ErrExhausted, "%d identities are to be spared, and at most %d can be: name them by a pattern", len(all), armor.MaxSpared)
	}
	return all, nil
}

// moveRotation brings a rotation into another phase.
func (d *draft) moveRotation(c armor.MoveRotation) error {
	r, found := d.Rotations.Get(c.Environment)
	if !found || !r.Active() {
		return refuse(armor.ErrNotFound, "environment %s is not being rotated: armorctl ca rotate start", c.Environment)
	}
	if r.Revision != c.Revision {
		return refuse(armor.ErrConflict, "the rotation of environment %s came into phase %s by revision %d, and this is about revision %d: look at it again",
			c.Environment, r.Phase, r.Revision, c.Revision)
	}
	var err error
	if r.Spared, err = spared(r.Spared, c.Spared); err != nil {
		return err
	}
	move := r.Move(c.To, c.Force)
	switch {
	case move == armor.NoMove:
		return refuse(armor.ErrInvalid, "no way leads from phase %s to phase %q: %s is next", r.Phase, c.To, r.Phase.Next())
	case move == armor.RollBack && r.Compromised:
		return refuse(armor.ErrConflict, "the old CA of environment %s is in wrong hands, so that it is not trusted again", c.Environment)
	case move == armor.Advance && !c.Force:
		if h := d.HindrancesOf(r, d.Time, hindrancesTold); !h.None() {
			return refuse(armor.ErrConflict, "environment %s cannot go on to phase %s: %s", c.Environment, c.To, tell(h))
		}
	}
	return d.move(r, move, c.To)
}

// move does what a phase means.
func (d *draft) move(r armor.Rotation, move armor.RotationMove, to armor.RotationPhase) error {
	old, _ := d.Anchors.Get(r.Old.String())
	if old.Distrusted != (to == armor.RotationDistrusted || move == armor.Finish) {
		d.distrust(old, !old.Distrusted)
	}
	if r.Issuing.IsZero() && move != armor.RollBack {
		r.Issuing = d.Time
	}
	r.Phase, r.Revision, r.Since = to, d.Revision, d.Time
	r.RolledBack = move == armor.RollBack && to == armor.RotationStandby
	if move == armor.Finish && r.Drill {
		r.Drilled = d.Time
	}
	put(d, armor.Rotations, r)
	if move != armor.Finish {
		return nil
	}
	reason := armor.Superseded
	if r.Compromised {
		reason = armor.CACompromise
	}
	return d.revoke(armor.Revoke{
		Reason: reason, Comment: "CA rotation of environment " + r.Environment,
		Selectors: []armor.Selector{{Kind: armor.SelectIssuer, Issuer: old.Certificate.Key}},
	})
}

func (d *draft) distrust(a armor.TrustAnchor, distrusted bool) {
	a.Distrusted = distrusted
	put(d, armor.Anchors, a)
}

// issues checks that a rotation has no certificate come from another CA than the one that
// may issue. Of a CA below some anchor it is not known of which.
func (d *draft) issues(environment string, issuers []armor.TrustAnchor) error {
	r, found := d.Rotations.Get(environment)
	if !found {
		return nil
	}
	from, not, rotating := r.Issuer()
	isNot := func(a armor.TrustAnchor) bool { return a.Certificate.Fingerprint == not }
	if !rotating || len(issuers) == 0 || !slices.ContainsFunc(issuers, isNot) {
		return nil
	}
	issuer, _ := d.Anchors.Get(from.String())
	return refuse(armor.ErrConflict, "environment %s is being rotated, and in phase %s certificates come from trust anchor %s: issue from that",
		environment, r.Phase, issuer.Name)
}

// hindrancesTold is how many certificates and identities a refusal names.
const hindrancesTold = 3

// tell puts what is in a rotation's way into words.
func tell(h armor.Hindrances) string {
	var all []string
	more := ""
	if h.More {
		more = ", and more"
	}
	if h.Unusable != "" {
		all = append(all, "the new CA vouches for nobody: "+h.Unusable)
	}
	if len(h.Certificates) > 0 {
		var names []string
		for _, c := range h.Certificates {
			names = append(names, fmt.Sprintf("%s of %s, owner %s", c.Certificate.ID.Serial, c.Certificate.Identity, c.Owner))
		}
		all = append(all, "certificates of the old CA that none has replaced: "+strings.Join(names, "; ")+more)
	}
	if len(h.Uses) > 0 {
		var names []string
		for _, u := range h.Uses {
			names = append(names, fmt.Sprintf("%s at %s", u.Identity, stamp(u.Seen)))
		}
		all = append(all, "let in by the old CA since: "+strings.Join(names, "; ")+more)
	}
	if h.Blind {
		all = append(all, fmt.Sprintf("%d uses are remembered, and no more can be, so that nobody knows who else comes by the old CA", armor.MaxUses))
	}
	if h.Wait > 0 {
		whole := (h.Wait + time.Minute - 1).Truncate(time.Minute) // whoever asks again reads no news each second
		all = append(all, fmt.Sprintf("the old CA has to be watched for %s more", whole))
	}
	return strings.Join(all, ". ")
}

// recordUses remembers when anchors have let identities in. What is no news is left out, so that
// whoever leads can repeat itself; a use in the future of log time is one of now.
func (d *draft) recordUses(c armor.RecordUses) error {
	if len(c.Uses) == 0 || len(c.Uses) > armor.MaxUsesAtOnce {
		return refuse(armor.ErrInvalid, "%d uses; 1 to %d are recorded at once", len(c.Uses), armor.MaxUsesAtOnce)
	}
	for _, u := range c.Uses {
		if _, err := armor.ParseIdentity(string(u.Identity)); err != nil {
			return describe(err, "use of trust anchor %s", u.Anchor.Short())
		}
		if u.Seen.After(d.Time) {
			u.Seen = d.Time
		}
		if d.WantsUse(u) {
			put(d, armor.Uses, u)
		}
	}
	d.forgetUses()
	return nil
}

// forgetUses makes room: uses of an anchor that is revoked or has ended say nothing any more.
func (d *draft) forgetUses() {
	if d.Uses.Len() < armor.MaxUses/2 {
		return
	}
	for a := range d.Anchors.Values() {
		if d.AnchorUnusable(a.Certificate.Fingerprint, d.Time) == "" {
			continue
		}
		for _, u := range d.Uses.Prefixed(a.Key()) {
			remove(d, armor.Uses, u)
		}
	}
}
