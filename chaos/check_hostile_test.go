package chaos

import (
	"slices"
	"testing"
	"time"
)

// siegeKept is a history of a hostile run in which every promise was kept.
func siegeKept() []Event {
	return []Event{
		{Kind: KindSettings, Subject: hostileName, Budget: 9, Patience: 15 * second},
		{Kind: KindIntruder, Subject: "stranger", Node: "n1", End: 2 * second, Outcome: Fail, SQLState: "28000"},
		{Kind: KindIntruder, Subject: "forged", Node: "n1", End: 2 * second, Outcome: Unknown},
		{Kind: KindSteady, Subject: "query", Node: "n1", End: 3 * second, Outcome: OK},
		{Kind: KindSteady, Subject: "query", Node: "n1", End: 3 * second, Outcome: Unknown},
		{Kind: KindTerm, Node: "n1", Found: 4, Start: 1 * second, End: 1 * second},
		{Kind: KindTerm, Node: "n2", Found: 12, Start: 40 * second, End: 40 * second},
		{Kind: KindClock, Subject: logClock, Found: -60_000},
		{Kind: KindClock, Subject: "n1", Found: -3},
		{Kind: KindHarm, Subject: "raft vote", Found: 100},
		{Kind: KindCanary, Subject: "revoke", Outcome: OK},
	}
}

func TestASiegeThatWasEnduredHasNoViolation(t *testing.T) {
	if found := Check(siegeKept()); len(found) != 0 {
		t.Fatal(found)
	}
}

func TestWhatAThiefAchievedIsFound(t *testing.T) {
	for _, bad := range []struct {
		checker string
		event   Event
	}{
		{"intruders", Event{Kind: KindIntruder, Subject: "forged", Node: "n2", Outcome: OK}},
		{"undisturbed", Event{Kind: KindCrash, Node: "n2"}},
		{"undisturbed", Event{Kind: KindSteady, Subject: "login", Node: "n2", Outcome: Fail, SQLState: "57P03"}},
		{"undisturbed", Event{Kind: KindCanary, Subject: "apply", Outcome: Fail}},
		{"terms", Event{Kind: KindTerm, Node: "n1", Found: 1 << 40, Start: 41 * second, End: 41 * second}},
		{"clocks", Event{Kind: KindClock, Subject: logClock, Found: 3_600_000}},
		{"clocks", Event{Kind: KindClock, Subject: "n2", Found: -86_400_000}},
	} {
		found := Check(append(siegeKept(), bad.event))
		if !slices.ContainsFunc(found, func(v Violation) bool { return v.Checker == bad.checker }) {
			t.Errorf("%+v: found %v, and not by %s", bad.event, found, bad.checker)
		}
	}
}

func TestTermAfterTermIsFound(t *testing.T) {
	events := siegeKept()
	for term := range 100 {
		events = append(events, Event{Kind: KindTerm, Node: "n1", Found: 20 + term, Start: 41 * second, End: 41 * second})
	}
	if found := checkTerms(events); len(found) == 0 {
		t.Fatal("a hundred terms in forty seconds")
	}
}

func TestTermsMayGoByAsLongAsPausesGrow(t *testing.T) {
	short, long := mostTerms(40*time.Second), mostTerms(10*time.Minute)
	if short < 10 || long <= short || long > 600/2 {
		t.Fatalf("%d in 40 s, %d in 10 min", short, long)
	}
}
