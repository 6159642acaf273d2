package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// rules are what armor.State.Decide asks, in its order, and the reasons by which it
// says no. Decide is the judge; this only says how far it came.
var rules = []struct {
	text    string
	reasons []armor.Reason
}{
	{"neither certificate, key, identity nor issuer is revoked", []armor.Reason{armor.ReasonRevoked}},
	{"a trust anchor vouches for the identity", []armor.Reason{armor.ReasonUntrusted, armor.ReasonDistrusted, armor.ReasonBinding, armor.ReasonProfile}},
	{"the certificate has begun and not expired", []armor.Reason{armor.ReasonNotYetValid, armor.ReasonExpired}},
	{"it lives no longer than its environment allows", []armor.Reason{armor.ReasonLifetime}},
	{"its key belongs to no other environment", []armor.Reason{armor.ReasonKeyReuse}},
	{"it is registered, where that is required", []armor.Reason{armor.ReasonUnregistered}},
	{"the identity is granted the database", []armor.Reason{armor.ReasonDatabase, armor.ReasonEnvironment}},
	{"the grant includes the role", []armor.Reason{armor.ReasonRole}},
	{"the grant allows replication, where that is asked for", []armor.Reason{armor.ReasonReplication}},
	{"the grant includes the address", []armor.Reason{armor.ReasonAddress}},
	{"the second factor is proved, where a login is over", []armor.Reason{armor.ReasonSecondFactor}},
}

// isJudged reports whether Decide can have given the reason; others are matters of the
// moment, such as a pool that was not ready.
func isJudged(reason armor.Reason) bool {
	for _, r := range rules {
		if slices.Contains(r.reasons, reason) {
			return true
		}
	}
	return false
}

// judgementView is how a state judges a client, as -o json shows it.
type judgementView struct {
	Allowed  bool         `json:"allowed"`
	Reason   armor.Reason `json:"reason,omitempty"`
	Message  string       `json:"message,omitempty"`
	Revision uint64       `json:"revision"`
	Rules    []ruleView   `json:"rules"`
	// What granted it, as far as the judge came.
	Environment string `json:"environment,omitempty"`
	Anchor      string `json:"anchor,omitempty"`
	Retired     bool   `json:"retired,omitempty"`   // that anchor is
	GrantedBy   string `json:"grantedBy,omitempty"` // the Identity object
	Pool        string `json:"pool,omitempty"`
	// SecondFactor is what the client must prove beside its certificate.
	SecondFactor armor.SecondFactor `json:"secondFactor,omitempty"`
	// Supposed says which certificate was judged, when none was shown.
	Supposed string    `json:"supposed,omitempty"`
	Facts    factsView `json:"facts"`
}

type ruleView struct {
	Rule    string `json:"rule"`
	Verdict string `json:"verdict"` // yes, no, or not reached
}

// judge runs the judge and says how far it came.
func judge(s *armor.State, f armor.Facts, now time.Time) judgementView {
	access, denial := s.Decide(f, now)
	j := judgementView{
		Allowed: denial == nil, Revision: s.Revision, Environment: access.Environment,
		Anchor: access.Anchor, GrantedBy: access.Name, Facts: viewOfFacts(f),
	}
	if denial != nil {
		j.Reason, j.Message = denial.Reason, denial.Message
	} else {
		j.Pool, j.SecondFactor = access.Pool.Name, access.SecondFactor
	}
	for a := range s.Anchors.Values() {
		j.Retired = j.Retired || a.Retired && a.Environment == j.Environment && a.Name == j.Anchor
	}
	word := "yes"
	for _, r := range rules {
		switch {
		case word == "no":
			word = "not reached"
		case denial != nil && slices.Contains(r.reasons, denial.Reason):
			word = "no"
		}
		j.Rules = append(j.Rules, ruleView{r.text, word})
	}
	return j
}

func (j judgementView) word() string {
	if j.Allowed && j.SecondFactor != "" {
		return fmt.Sprintf("allowed, in pool %s, with a second factor: %s", j.Pool, j.SecondFactor)
	}
	if j.Allowed && j.Pool == "" {
		return "allowed, at the admin console"
	}
	if j.Allowed {
		return "allowed, in pool " + j.Pool
	}
	return "refused: " + j.Message
}

func (j judgementView) table(title string) table {
	t := table{title: title}
	for _, r := range j.Rules {
		t.row("  "+r.Verdict, r.Rule)
	}
	if j.Retired {
		t.row("  note", "trust anchor "+j.Anchor+" is retired: its certificates count until they end, and no further one is registered")
	}
	return t
}
