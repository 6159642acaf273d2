package main

import (
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestCertificatesOfNodesAndOperatorsAreDueInTheLastThirdOfTheirLives(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	until := func(left time.Duration) armor.Certificate {
		return armor.Certificate{NotBefore: now.Add(-60 * day), NotAfter: now.Add(left), Key: armor.Digest{byte(left / day)}}
	}
	s := &armor.State{}
	s.Members = s.Members.With(armor.Member{ID: "n1", Certificate: until(29 * day)}).
		With(armor.Member{ID: "n2", Certificate: until(31 * day)}).With(armor.Member{ID: "n3", Certificate: until(-day)})
	s.Operators = s.Operators.With(armor.Operator{Name: "ann", Certificate: until(20 * day)}).
		With(armor.Operator{Name: "gone", Certificate: until(10 * day)})
	s.Revocations = s.Revocations.With(armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: until(10 * day).Key}})
	var advice []string
	for _, v := range endingOwn(s, now) {
		advice = append(advice, v.Kind+" "+v.advice())
	}
	want := []string{
		"node n3's ended at 2026-02-28T12:00:00Z: armorctl node renew n3 --peer-ca DIR",
		"operator ann's ends at 2026-03-21T12:00:00Z: armorctl operator renew ann --peer-ca DIR",
		"node n1's ends at 2026-03-30T12:00:00Z: armorctl node renew n1 --peer-ca DIR",
	}
	if strings.Join(advice, "\n") != strings.Join(want, "\n") {
		t.Errorf("advice:\n%s\nwant:\n%s", strings.Join(advice, "\n"), strings.Join(want, "\n"))
	}
}
