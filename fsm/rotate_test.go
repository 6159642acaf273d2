package fsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// rotation is a lab in which environment dev is about to be rotated from dev-ca, of which it has
// certificate web, to next-ca.
func rotation(t *testing.T) *lab {
	t.Helper()
	l := furnished(t)
	l.must(l.by("ada", l.anchor("next-ca", "dev", "spiffe://dev.acme/*")))
	return l
}

func fingerprint(caName string) armor.Digest { c, _ := ca(caName); return c.Fingerprint }

func devRotation() armor.StartRotation {
	return armor.StartRotation{Environment: "dev", Old: fingerprint("dev-ca"), New: fingerprint("next-ca")}
}

func (l *lab) rotation() armor.Rotation {
	r, _ := l.state().Rotations.Get("dev")
	return r
}

func (l *lab) to(phase armor.RotationPhase) armor.MoveRotation {
	return armor.MoveRotation{Environment: "dev", Revision: l.rotation().Revision, To: phase}
}

// replaceWeb issues web another certificate.
func (l *lab) replaceWeb(issuer string) {
	l.t.Helper()
	l.must(l.by("ada", armor.RegisterCertificate{
		Record:   armor.CertRecord{Certificate: l.leaf("web-2", issuer, "spiffe://dev.acme/web"), Environment: "dev", Owner: "team"},
		Replaces: l.leaf("web", "dev-ca", "").Fingerprint,
	}))
}

// brought starts a rotation and brings it into a phase.
func (l *lab) brought(phase armor.RotationPhase) {
	l.t.Helper()
	l.must(l.by("ada", devRotation()))
	for l.rotation().Phase != phase {
		next := l.rotation().Phase.Next()
		l.must(l.by("ada", l.to(next)))
		if next == armor.RotationIssuing {
			l.replaceWeb("next-ca")
		}
	}
}

// letsIn judges a certificate of a CA.
func (l *lab) letsIn(issuer string) *armor.Denial {
	c, _ := ca(issuer)
	_, denial := l.state().Decide(armor.Facts{
		Database: "app", Role: "rw", Peer: armor.Peer{Leaf: l.leaf("x", issuer, "spiffe://dev.acme/web"), Chains: [][]armor.Certificate{{c}}},
	}, l.now)
	return denial
}

var afterStandby = armor.RotationPhases()[1:]

func TestARotationTakesAnEnvironmentFromOneCAToAnother(t *testing.T) {
	l := rotation(t)
	old := l.letsIn("dev-ca")
	if old != nil || l.letsIn("next-ca") != nil {
		t.Fatal("not both are trusted to begin with", old)
	}
	l.brought(armor.RotationShadow)
	if l.letsIn("dev-ca") != nil || l.letsIn("next-ca") != nil {
		t.Error("a client is refused before its CA is distrusted")
	}
	l.must(l.by("ada", l.to(armor.RotationDistrusted)))
	denial := l.letsIn("dev-ca")
	if denial == nil || denial.Reason != armor.ReasonDistrusted || !strings.Contains(denial.Detail, `CA "next-ca" has taken its place`) {
		t.Errorf("by the old CA: %+v", denial)
	}
	if l.letsIn("next-ca") != nil {
		t.Error("the new CA lets nobody in")
	}
	l.must(l.by("ada", l.to(armor.RotationStandby)))
	r := l.rotation()
	if r.Active() || r.RolledBack || l.letsIn("dev-ca") == nil || l.letsIn("next-ca") != nil {
		t.Errorf("in the end: %+v", r)
	}
	c, _ := ca("dev-ca")
	if _, revoked := l.state().Revokes(armor.Certificate{}, []armor.Certificate{{Key: c.Key}}); !revoked {
		t.Error("the old CA's key is not revoked in the end: a cross certificate would bring it back")
	}
	m := New()
	restore(t, m, l.machine.Snapshot())
	sameMachine(t, "restored", l.machine, m)
}

func TestNobodyIssuesFromTheOtherCA(t *testing.T) {
	for _, c := range []struct {
		phase    armor.RotationPhase
		old, new bool
	}{
		{armor.RotationStaged, true, false}, {armor.RotationIssuing, false, true}, {armor.RotationTaint, false, true},
		{armor.RotationShadow, false, true}, {armor.RotationDistrusted, false, true},
	} {
		l := rotation(t)
		l.brought(c.phase)
		for issuer, may := range map[string]bool{"dev-ca": c.old, "next-ca": c.new} {
			err := l.takenIn("fresh-"+issuer, issuer)
			if may != (err == nil) || err != nil && !errors.Is(err, armor.ErrConflict) {
				t.Errorf("in phase %s of %s: %v", c.phase, issuer, err)
			}
		}
	}
}

func TestFromEachPhaseARotationIsRolledBack(t *testing.T) {
	for _, phase := range afterStandby {
		l := rotation(t)
		l.brought(phase)
		if phase == armor.RotationDistrusted {
			l.must(l.by("ada", l.to(armor.RotationShadow)))
			if l.letsIn("dev-ca") != nil || l.rotation().Phase != armor.RotationShadow {
				t.Errorf("taken back: %+v", l.rotation())
			}
		}
		l.must(l.by("ada", l.to(armor.RotationStandby)))
		if r := l.rotation(); r.Active() || !r.RolledBack {
			t.Errorf("from phase %s: %+v", phase, r)
		}
		for _, issuer := range []string{"dev-ca", "next-ca"} {
			if d := l.letsIn(issuer); d != nil {
				t.Errorf("rolled back from phase %s, %s lets nobody in: %v", phase, issuer, d)
			}
			if err := l.takenIn("after-"+issuer, issuer); err != nil {
				t.Errorf("rolled back from phase %s, %s issues nothing: %v", phase, issuer, err)
			}
		}
		l.must(l.by("ada", devRotation())) // another attempt
	}
}

// Planted mistakes that this catches: a certificate that was replaced by one of the same CA, one of
// an intermediate below the old CA, one that was revoked or has ended and is waited for, and a gate
// that is asked in the wrong phase.
func TestACertificateOfTheOldCAHoldsARotationUp(t *testing.T) {
	l := rotation(t)
	if err := l.takenIn("below", "some intermediate"); err != nil {
		t.Fatal(err)
	}
	l.must(l.by("ada", l.brief("over", time.Minute)))
	if err := l.takenIn("revoked", "dev-ca"); err != nil {
		t.Fatal(err)
	}
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest("key", "revoked")}}}))
	l.must(l.by("ada", devRotation()))
	l.replaceWeb("dev-ca")
	for _, phase := range []armor.RotationPhase{armor.RotationIssuing, armor.RotationTaint} {
		l.must(l.by("ada", l.to(phase)))
	}
	l.now = l.now.Add(time.Hour)
	if err := l.takenIn("above", "another intermediate"); err != nil { // of the new CA, for the old one issues no more
		t.Fatal(err)
	}
	err := l.by("ada", l.to(armor.RotationShadow)).Err
	if !errors.Is(err, armor.ErrConflict) {
		t.Fatalf("with certificates that none has replaced: %v", err)
	}
	for text, wanted := range map[string]bool{
		"spiffe://dev.acme/web, owner team": true, "spiffe://dev.acme/below": true,
		"dev.acme/over": false, "dev.acme/revoked": false, "dev.acme/above": false,
	} {
		if strings.Contains(err.Error(), text) != wanted {
			t.Errorf("%q is told: %t: %v", text, !wanted, err)
		}
	}
	move := l.to(armor.RotationShadow)
	move.Spared = []armor.Pattern{"spiffe://dev.acme/below", "spiffe://dev.acme/web/*"}
	if err := l.by("ada", move).Err; !errors.Is(err, armor.ErrConflict) || strings.Contains(err.Error(), "below") {
		t.Errorf("with one of two spared: %v", err)
	}
	move.Spared = append(move.Spared, "spiffe://dev.acme/web")
	l.must(l.by("ada", move))
	if r := l.rotation(); len(r.Spared) != 3 || !slices.IsSorted(r.Spared) {
		t.Errorf("spared: %v", r.Spared)
	}
}

func TestAUseOfTheOldCAHoldsARotationUp(t *testing.T) {
	l := rotation(t)
	start := devRotation()
	start.Watch = 24 * time.Hour
	uses := func(caName string, id armor.Identity, seen time.Time) armor.RecordUses {
		return armor.RecordUses{Uses: []armor.Use{{Anchor: fingerprint(caName), Identity: id, Seen: seen}}}
	}
	l.must(l.by("ada", start))
	l.must(l.by("ada", l.to(armor.RotationIssuing)))
	l.replaceWeb("next-ca")
	l.must(l.by("ada", l.to(armor.RotationTaint)))
	l.must(l.node("n1", uses("dev-ca", "spiffe://dev.acme/web", l.now)))
	l.now = l.now.Add(time.Minute)
	l.must(l.by("ada", l.to(armor.RotationShadow)))
	move := l.to(armor.RotationDistrusted)
	if err := l.by("ada", move).Err; !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "24h0m0s more") || strings.Contains(err.Error(), "let in") {
		t.Errorf("at once: %v", err)
	}
	l.now = l.now.Add(time.Minute)
	l.must(l.node("n1", uses("dev-ca", "spiffe://dev.acme/web", l.now))) // less than UseGrain later
	l.must(l.node("n1", uses("next-ca", "spiffe://dev.acme/web", l.now)))
	l.must(l.node("n1", uses("dev-ca", "spiffe://elsewhere.acme/web", l.now))) // which it cannot vouch for
	l.now = l.now.Add(25 * time.Hour)
	err := l.by("ada", move).Err
	if !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "spiffe://dev.acme/web at 20") || strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("with one who comes by the old CA: %v", err)
	}
	forced := move
	forced.Force = true
	if _, err := l.machine.Check(l.request("ada", forced), l.now); err != nil {
		t.Errorf("forced: %v", err)
	}
	move.Spared = []armor.Pattern{"spiffe://dev.acme/*"}
	l.must(l.by("ada", move))
}

func TestOfTwoWhoMoveARotationOneIsRefused(t *testing.T) {
	l := rotation(t)
	l.must(l.by("ada", devRotation()))
	move := l.to(armor.RotationIssuing)
	l.must(l.by("ada", move))
	if err := l.by("ada", move).Err; !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "look at it again") {
		t.Errorf("moved by what was seen before: %v", err)
	}
	for _, phase := range []armor.RotationPhase{"", "anywhere", armor.RotationStaged, armor.RotationIssuing, armor.RotationShadow, armor.RotationDistrusted} {
		if err := l.by("ada", l.to(phase)).Err; !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("from phase issuing to %q: %v", phase, err)
		}
	}
	if err := l.by("ada", devRotation()).Err; !errors.Is(err, armor.ErrConflict) {
		t.Errorf("started twice: %v", err)
	}
	for _, name := range []string{"dev-ca", "next-ca"} {
		if err := l.retire(fingerprint(name), false); !errors.Is(err, armor.ErrConflict) {
			t.Errorf("%s retired meanwhile: %v", name, err)
		}
	}
}

func TestACAIsCutAtOnce(t *testing.T) {
	l := rotation(t)
	start := devRotation()
	start.Compromised = true
	l.must(l.by("ada", start))
	if l.letsIn("dev-ca") == nil || l.letsIn("next-ca") != nil {
		t.Error("not the old CA, and it alone, is distrusted")
	}
	for _, phase := range []armor.RotationPhase{armor.RotationShadow, armor.RotationStaged} {
		if err := l.by("ada", l.to(phase)).Err; err == nil {
			t.Errorf("back to phase %s by who may have the key", phase)
		}
	}
	l.must(l.by("ada", l.to(armor.RotationStandby)))
	for _, phase := range afterStandby[:4] {
		l := rotation(t)
		l.brought(phase)
		move := l.to(armor.RotationDistrusted)
		move.Force = true
		l.must(l.by("ada", move))
		if l.letsIn("dev-ca") == nil || l.takenIn("new", "next-ca") != nil {
			t.Errorf("cut in phase %s", phase)
		}
	}
}

func TestOnlyWhatCanTakeItsPlaceIsRotatedTo(t *testing.T) {
	l := rotation(t)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "prod"}}))
	l.must(l.by("ada", l.anchor("prod-ca", "prod", "spiffe://prod.acme/*")))
	l.must(l.by("ada", l.anchor("narrow-ca", "dev", "spiffe://dev.acme/app/*")))
	l.must(l.by("ada", l.anchor("revoked-ca", "dev", "spiffe://dev.acme/*")))
	below := l.anchor("below-ca", "dev", "spiffe://dev.acme/*")
	below.Anchor.Certificate.ID.Issuer = digest("key", "dev-ca")
	l.must(l.by("ada", below))
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded,
		Selectors: []armor.Selector{{Kind: armor.SelectIssuer, Issuer: digest("key", "revoked-ca")}}}))
	for name, kind := range map[string]error{
		"dev-ca": armor.ErrInvalid, "narrow-ca": armor.ErrInvalid, "revoked-ca": armor.ErrInvalid, "below-ca": armor.ErrInvalid,
		"prod-ca": armor.ErrNotFound, "no-ca": armor.ErrNotFound,
	} {
		c := devRotation()
		c.New = fingerprint(name)
		if err := l.by("ada", c).Err; !errors.Is(err, kind) {
			t.Errorf("to %s: %v", name, err)
		}
	}
	if err := l.by("ada", devRotation()).Err; !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "below-ca is signed by dev-ca") {
		t.Errorf("from a CA that has signed another: %v", err)
	}
	for what, spoil := range map[string]func(*armor.StartRotation){
		"an unknown environment": func(c *armor.StartRotation) { c.Environment = "nowhere" },
		"a negative watch":       func(c *armor.StartRotation) { c.Watch = -1 },
		"a watch of ever":        func(c *armor.StartRotation) { c.Watch = 1 << 62 },
		"nonsense to spare":      func(c *armor.StartRotation) { c.Spared = []armor.Pattern{"web"} },
	} {
		c := devRotation()
		spoil(&c)
		if l.by("ada", c).Err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	l.must(l.by("ada", armor.PutOperator{Operator: l.operator("bob", armor.Issuer, armor.Revoker)}))
	for _, principal := range []string{"bob", "node/n1"} {
		if err := l.apply(l.request(principal, devRotation())).Err; !errors.Is(err, armor.ErrDenied) {
			t.Errorf("by %s: %v", principal, err)
		}
	}
}

// The new CA comes to grief in the middle: nobody is brought to depend on it alone.
func TestARotationStopsWhereTheNewCAIsRevoked(t *testing.T) {
	l := rotation(t)
	l.brought(armor.RotationShadow)
	l.must(l.by("ada", armor.Revoke{Reason: armor.CACompromise,
		Selectors: []armor.Selector{{Kind: armor.SelectIssuer, Issuer: digest("key", "next-ca")}}}))
	if err := l.by("ada", l.to(armor.RotationDistrusted)).Err; !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "the new CA vouches for nobody") {
		t.Errorf("towards a revoked CA: %v", err)
	}
	l.must(l.by("ada", l.to(armor.RotationStandby)))
	if d := l.letsIn("dev-ca"); d != nil {
		t.Errorf("rolled back: %v", d)
	}
}

// Uses are bounded, and where one may be missing nobody relies on there being none.
func TestUsesAreBounded(t *testing.T) {
	l := rotation(t)
	l.brought(armor.RotationTaint)
	for at := 0; at < armor.MaxUses; at += armor.MaxUsesAtOnce {
		var c armor.RecordUses
		for i := range armor.MaxUsesAtOnce {
			c.Uses = append(c.Uses, armor.Use{Anchor: fingerprint("next-ca"), Identity: armor.Identity(fmt.Sprintf("spiffe://dev.acme/a%d", at+i)), Seen: l.now})
		}
		l.now = l.now.Add(time.Minute)
		l.must(l.node("n1", c))
	}
	l.must(l.by("ada", l.to(armor.RotationShadow)))
	if n := l.state().Uses.Len(); n != armor.MaxUses {
		t.Fatalf("%d uses", n)
	}
	more := armor.Use{Anchor: fingerprint("dev-ca"), Identity: "spiffe://dev.acme/late", Seen: l.now}
	l.must(l.node("n1", armor.RecordUses{Uses: []armor.Use{more}}))
	if l.state().Uses.Len() != armor.MaxUses {
		t.Error("one more is remembered than can be")
	}
	if err := l.by("ada", l.to(armor.RotationDistrusted)).Err; !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "nobody knows who else") {
		t.Errorf("blind: %v", err)
	}
	if err := l.node("n1", armor.RecordUses{}).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no uses: %v", err)
	}
	if err := l.by("ada", armor.RecordUses{Uses: []armor.Use{more}}).Err; !errors.Is(err, armor.ErrDenied) {
		t.Errorf("by an operator: %v", err)
	}
	// A CA that lets nobody in any more has its uses forgotten once there is want of room.
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{{Kind: armor.SelectIssuer, Issuer: digest("key", "next-ca")}}}))
	l.must(l.node("n1", armor.RecordUses{Uses: []armor.Use{more}}))
	l.must(l.node("n1", armor.RecordUses{Uses: []armor.Use{more}}))
	if n := l.state().Uses.Len(); n != 1 {
		t.Errorf("%d uses are left", n)
	}
}
