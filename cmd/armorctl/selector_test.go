package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

func TestAnIdentityThatWasEmptiedCanBeIssuedAnewAtOnce(t *testing.T) {
	id := armor.Identity("spiffe://production.acme.internal/app/checkout")
	now := time.Date(2026, 1, 2, 3, 4, 5, 700_000_000, time.UTC)
	ca, key, err := pki.NewCA(pki.CAConfig{Kind: pki.ClientCA, CommonName: "test", TrustDomain: id.TrustDomain(), Lifetime: day,
		Now: now.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(s *armor.State, at time.Time) armor.Certificate {
		t.Helper()
		leafKey, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.SignLeaf(ca, key, leafKey.Public(),
			pki.LeafConfig{Identity: id, Client: true, Lifetime: time.Hour, Now: issue.DatedFrom(s, id, at)})
		if err != nil {
			t.Fatal(err)
		}
		return pki.Facts(cert, pki.SPKI(ca))
	}
	before := sign(&armor.State{}, now)
	for _, pattern := range []armor.Pattern{armor.Pattern(id), "spiffe://production.acme.internal/app/*"} {
		selector := armor.Selector{Kind: armor.SelectIdentity, Identity: pattern, IssuedBefore: emptiedAt(now)}
		s := &armor.State{}
		s.Revocations = s.Revocations.With(armor.Revocation{Selector: selector})
		if _, revoked := s.Revokes(before, nil); !revoked {
			t.Errorf("%s: a certificate from before is not revoked", selector)
		}
		after := sign(s, now)
		if _, revoked := s.Revokes(after, nil); revoked {
			t.Errorf("%s: a certificate from after, valid from %s, is revoked", selector, after.NotBefore)
		}
		if after.NotBefore.After(now.Add(armor.ClockSkew)) {
			t.Errorf("%s: the new certificate is valid from %s only", selector, after.NotBefore)
		}
	}
}

func TestAnAmbiguousWordIsRefused(t *testing.T) {
	s := &armor.State{}
	for _, fp := range []armor.Digest{{0xaa, 0xbb, 0xcc, 0xdd, 1}, {0xaa, 0xbb, 0xcc, 0xdd, 2}} {
		s.Inventory = s.Inventory.With(armor.CertRecord{Certificate: armor.Certificate{Fingerprint: fp}})
	}
	if _, err := findRecord(s, "aabbccdd"); err == nil {
		t.Error("one of two was chosen")
	}
	if r, err := findRecord(s, "AA:BB:CC:DD:02"); err != nil || r.Certificate.Fingerprint[4] != 2 {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := findRecord(s, "aabb"); err == nil {
		t.Error("four digits were enough")
	}
}

func TestEnforcementIsWaitedForAsLongAsTheSlowestEnvironmentNeeds(t *testing.T) {
	s := &armor.State{}
	if got := enforcementPatience(s); got != 20*time.Second+150*time.Millisecond {
		t.Errorf("without environments: %s", got)
	}
	s.Environments = s.Environments.With(armor.Environment{Name: "slow", FreshLive: 100 * time.Second})
	if got := enforcementPatience(s); got != 106*time.Second {
		t.Errorf("T_live of 100 s: %s", got)
	}
}

// TestRulesCoverTheJudge reads the judge's source: each reason that it gives must be of
// a rule that explain shows.
func TestRulesCoverTheJudge(t *testing.T) {
	source := ""
	for _, name := range []string{"trust.go", "denial.go"} {
		text, err := os.ReadFile("../../armor/" + name)
		if err != nil {
			t.Fatal(err)
		}
		source += string(text)
	}
	words := map[string]armor.Reason{}
	for _, m := range regexp.MustCompile(`(Reason\w+)\s+Reason = "(\w+)"`).FindAllStringSubmatch(source, -1) {
		words[m[1]] = armor.Reason(m[2])
	}
	given := regexp.MustCompile(`(?:deny\(|reason :?= )(Reason\w+)`).FindAllStringSubmatch(source, -1)
	if len(given) < 12 {
		t.Fatalf("the judge was seen to give %d reasons only", len(given))
	}
	for _, m := range given {
		if !isJudged(words[m[1]]) {
			t.Errorf("no rule is for %s", m[1])
		}
	}
	for _, reason := range []armor.Reason{armor.ReasonStale, armor.ReasonLimit, armor.ReasonShutdown} {
		if isJudged(reason) {
			t.Errorf("%s is a matter of the moment", reason)
		}
	}
}
