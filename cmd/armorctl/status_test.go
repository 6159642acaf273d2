package main

import (
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestCertificateIsDueByTheShareOfItsLifeThatIsLeft(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		life, left time.Duration
		want       bool
	}{
		{30 * day, 30 * day, false}, // just issued
		{30 * day, 11 * day, false},
		{30 * day, 9 * day, true},
		{365 * day, 60 * day, false},
		{365 * day, 29 * day, true},
		{24 * time.Hour, 9 * time.Hour, false},
		{24 * time.Hour, 7 * time.Hour, true},
	} {
		c := armor.Certificate{NotAfter: now.Add(test.left), NotBefore: now.Add(test.left - test.life)}
		if got := endsSoon(c, now); got != test.want {
			t.Errorf("%s left of %s: %t", test.left, test.life, got)
		}
	}
}

func TestStatusSaysWhoDoesNotVoteYet(t *testing.T) {
	s := &armor.State{}
	for _, m := range []armor.Member{{ID: "n1", Voter: true}, {ID: "n2", Voter: true}, {ID: "n3"}} {
		s.Members = s.Members.With(m)
	}
	v := (&app{now: time.Now}).viewOfStatus(s, []nodeView{{Node: "n1", Role: "leader"}, {Node: "n2", Role: nonVoter}, {Node: "n3", Role: nonVoter}})
	if len(v.NotYetVoting) != 1 || v.NotYetVoting[0] != "n2" {
		t.Errorf("%v", v.NotYetVoting)
	}
}
