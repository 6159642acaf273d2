package fsm

import (
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// takenIn asks to have a certificate of an issuer taken in.
func (l *lab) takenIn(name, issuer string) error {
	return l.by("ada", armor.RegisterCertificate{Record: armor.CertRecord{
		Certificate: l.leaf(name, issuer, armor.Identity("spiffe://dev.acme/"+name)), Environment: "dev", Owner: "team",
	}}).Err
}

func (l *lab) retire(anchor armor.Digest, undo bool) error {
	return l.by("ada", armor.RetireAnchor{Anchor: anchor, Undo: undo}).Err
}

// Planted mistakes that this catches: a retired anchor that others of its environment speak for,
// one that an intermediate's leaves get round, and a second registration that takes the mark off.
func TestOfARetiredAnchorNothingNewIsTakenIn(t *testing.T) {
	l := furnished(t)
	old := l.anchor("dev-ca", "dev", "spiffe://dev.acme/*")
	fingerprint := old.Anchor.Certificate.Fingerprint
	if err := l.retire(fingerprint, false); err != nil {
		t.Fatal(err)
	}
	if err := l.retire(fingerprint, false); err != nil {
		t.Errorf("retired again: %v", err)
	}
	for name, issuer := range map[string]string{"new": "dev-ca", "lower": "some intermediate"} {
		if err := l.takenIn(name, issuer); !errors.Is(err, armor.ErrConflict) || !strings.Contains(err.Error(), "ca retire dev-ca --undo") {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.must(l.by("ada", old)) // as ca init does when it is run again
	if err := l.takenIn("new", "dev-ca"); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("after ca init: %v", err)
	}
	l.must(l.by("ada", l.anchor("next-ca", "dev", "spiffe://dev.acme/*")))
	if err := l.takenIn("new", "dev-ca"); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("beside another anchor: %v", err)
	}
	for name, issuer := range map[string]string{"other": "next-ca", "below": "some intermediate"} {
		if err := l.takenIn(name, issuer); err != nil {
			t.Errorf("of another anchor, %s: %v", name, err)
		}
	}
	if err := l.retire(fingerprint, true); err != nil {
		t.Fatal(err)
	}
	if err := l.takenIn("new", "dev-ca"); err != nil {
		t.Errorf("undone: %v", err)
	}
}

func TestOnlyAKnownAnchorIsRetiredAndOnlyByACAAdmin(t *testing.T) {
	l := furnished(t)
	known := l.anchor("dev-ca", "dev", "spiffe://dev.acme/*").Anchor
	if err := l.retire(digest("nothing"), false); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	command := armor.RetireAnchor{Anchor: known.Certificate.Fingerprint}
	if err := l.node("n1", command).Err; !errors.Is(err, armor.ErrDenied) {
		t.Errorf("by a node: %v", err)
	}
	l.must(l.by("ada", armor.PutOperator{Operator: l.operator("bob", armor.Issuer, armor.Revoker)}))
	if err := l.by("bob", command).Err; !errors.Is(err, armor.ErrDenied) {
		t.Errorf("by an issuer: %v", err)
	}
	retired := l.anchor("born-old", "dev", "spiffe://dev.acme/*")
	retired.Anchor.Retired = true
	if err := l.by("ada", retired).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("registered as retired: %v", err)
	}
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{{Kind: armor.SelectIssuer, Issuer: known.Certificate.Key}}}))
	if err := l.retire(known.Certificate.Fingerprint, true); !errors.Is(err, armor.ErrRevoked) {
		t.Errorf("a revoked one taken into use: %v", err)
	}
}
