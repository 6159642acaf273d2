package fsm

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// brief registers a certificate that ends after life.
func (l *lab) brief(name string, life time.Duration) armor.RegisterCertificate {
	c := l.leaf(name, "dev-ca", armor.Identity("spiffe://dev.acme/"+name))
	c.NotBefore, c.NotAfter = l.now.Add(-time.Minute), l.now.Add(life)
	return armor.RegisterCertificate{Record: armor.CertRecord{Certificate: c, Environment: "dev", Owner: "team"}}
}

// registered has a certificate registered and returns what selects it alone.
func (l *lab) registered(name string, life time.Duration) armor.Selector {
	c := l.brief(name, life)
	l.must(l.by("ada", c))
	return armor.Selector{Kind: armor.SelectCertificate, Certificate: c.Record.Certificate.ID}
}

func (l *lab) forget(ago time.Duration) error {
	return l.by("ada", armor.PruneCertificates{EndedBefore: l.now.Add(-ago)}).Err
}

func (l *lab) revoked(s armor.Selector) bool {
	_, found := l.state().Revocations.Get(s.SelectorKey())
	return found
}

func TestOnlyWhatRevokesAForgottenCertificateAloneIsForgotten(t *testing.T) {
	l := furnished(t)
	before := l.state().Inventory.Len()
	over, good := l.registered("over", time.Hour), l.registered("good", 200*time.Hour)
	unknown := armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: over.Certificate.Issuer, Serial: "abc"}}
	kept := []armor.Selector{
		good, unknown,
		{Kind: armor.SelectKey, Key: l.leaf("over", "", "").Key},
		{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/over"},
	}
	l.must(l.by("ada", armor.Revoke{Selectors: append(kept, over), Reason: armor.Superseded}))
	l.now = l.now.Add(2*time.Hour + armor.KeptAfterEnd)
	if err := l.forget(armor.KeptAfterEnd); err != nil {
		t.Fatal(err)
	}
	if n := l.state().Inventory.Len(); n != before+1 || l.revoked(over) {
		t.Errorf("%d certificates beside the first %d; what has ended is revoked: %v", n-before, before, l.revoked(over))
	}
	for _, s := range kept {
		if !l.revoked(s) {
			t.Errorf("%s is not revoked any more", s)
		}
	}
}

// Whoever leads may say that it is any time, but he cannot sign for an operator; and an operator
// whose clock is ahead is held against log time.
func TestNothingIsForgottenThatAClockMayStillLetIn(t *testing.T) {
	l := furnished(t)
	over := l.registered("over", time.Hour)
	l.must(l.by("ada", armor.Revoke{Selectors: []armor.Selector{over}, Reason: armor.Superseded}))
	l.now = l.now.Add(2*time.Hour + armor.KeptAfterEnd)
	for _, ago := range []time.Duration{-time.Hour, 0, armor.KeptAfterEnd - time.Second} {
		if err := l.forget(ago); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("what ended before %s ago: %v", ago, err)
		}
	}
	if err := l.by("ada", armor.PruneCertificates{}).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("no time: %v", err)
	}
	if err := l.node("n1", armor.PruneCertificates{EndedBefore: l.now.Add(-armor.KeptAfterEnd)}).Err; !errors.Is(err, armor.ErrDenied) {
		t.Errorf("a node: %v", err)
	}
	if !l.revoked(over) {
		t.Error("it is not revoked any more")
	}
}

// A key is free with the last of its certificates, whether a node has applied the log or
// was handed the state.
func TestAKeyStaysBoundWhileOneOfItsCertificatesIsKnown(t *testing.T) {
	l := furnished(t)
	for i, life := range []time.Duration{time.Hour, 2 * time.Hour} {
		c := l.brief(fmt.Sprint("life-", i), life)
		c.Record.Certificate.Key = digest("key", "shared")
		l.must(l.by("ada", c))
	}
	key := digest("key", "shared").String()
	for i, want := range []string{"dev", ""} {
		l.now = l.now.Add(armor.KeptAfterEnd)
		if i == 0 {
			l.now = l.now.Add(time.Hour + time.Second)
		}
		if err := l.forget(armor.KeptAfterEnd); err != nil {
			t.Fatal(err)
		}
		restored := New()
		restore(t, restored, l.machine.Snapshot())
		handed, _ := restored.Current()
		for which, s := range map[string]*armor.State{"applied": l.state(), "restored": handed} {
			if bound, _ := s.KeyEnvironments.Get(key); bound != want {
				t.Errorf("%s, after %d of 2 were forgotten: bound to %q, want %q", which, i+1, bound, want)
			}
		}
	}
}

func TestOneEntryForgetsABoundedNumber(t *testing.T) {
	l := furnished(t)
	for i := range armor.MaxPruned + 1 {
		l.registered(fmt.Sprint("many-", i), time.Hour+time.Duration(i)*time.Millisecond)
	}
	l.now = l.now.Add(2*time.Hour + armor.KeptAfterEnd)
	for _, want := range []int{1, 0} {
		if err := l.forget(armor.KeptAfterEnd); err != nil {
			t.Fatal(err)
		}
		left := 0
		for range l.state().Ended(l.now) {
			left++
		}
		if left != want {
			t.Errorf("%d are left, want %d", left, want)
		}
	}
}
