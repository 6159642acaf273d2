package chaos

import (
	"slices"
	"strings"
	"testing"
)

// goodLoad is a history of a load in which everything was as it should be.
func goodLoad() []Event {
	return []Event{
		{Kind: KindSettings, Subject: loadName, Budget: 2},
		{Kind: KindReply, Subject: "c1-1", Got: "c1-1", Outcome: OK},
		{Kind: KindReply, Subject: "c2-1", Got: "c2-1", Outcome: OK},
		{Kind: KindCancel, Subject: "c1-2", Outcome: Fail, SQLState: queryCanceled},
		{Kind: KindCancel, Subject: "c1-3", Got: "c1-3", Outcome: OK}, // it came too late
		{Kind: KindState, Subject: "c1", Outcome: OK},
		{Kind: KindCommit, Subject: "c1-4/0/1/50", Outcome: OK},
		{Kind: KindCommit, Subject: "c1-5/1/2/20", Outcome: Unknown},
		{Kind: KindCommit, Subject: "c1-6/1/2/10", Outcome: Unknown},
		{Kind: KindCommit, Subject: "c1-7/0/2/10", Outcome: Fail},
		{Kind: KindCommit, Subject: "c1-8", Outcome: OK}, // moves nothing
		{Kind: KindLedger, Subject: "c1-4/0/1/50"},
		{Kind: KindLedger, Subject: "c1-5/1/2/20"},
		{Kind: KindLedger, Subject: "c1-8"},
		{Kind: KindBalance, Subject: "0", Found: -50},
		{Kind: KindBalance, Subject: "1", Found: 30},
		{Kind: KindBalance, Subject: "2", Found: 20},
		{Kind: KindBalance, Subject: "3"},
		{Kind: KindBackend, Subject: "100", Start: 1 * second, End: 5 * second},
		{Kind: KindLevel, Subject: "sessions", Node: "n1"},
		{Kind: KindLevel, Subject: "goroutines", Node: "n1", Found: 60, Allowed: 70},
		{Kind: KindFault, Subject: "c1 in a query"},
	}
}

func TestGoodLoadPasses(t *testing.T) {
	if found := Check(goodLoad()); len(found) != 0 {
		t.Fatalf("a good history has violations: %v", found)
	}
	if missing := Missing(goodLoad()); len(missing) != 0 {
		t.Fatalf("missing: %v", missing)
	}
	if missing := Missing(goodLoad()[:2]); len(missing) != len(demanded[loadName])-1 {
		t.Fatalf("of hardly anything only this is missing: %v", missing)
	}
}

func TestEachCheckerRejectsItsBadLoad(t *testing.T) {
	cases := []struct {
		name    string
		checker string
		bad     Event
		says    string
	}{
		{"a reply goes to somebody else", "replies", Event{Kind: KindReply, Subject: "c1-9", Got: "c2-9", Outcome: OK}, `with "c2-9"`},
		{"a cancel hits somebody else", "replies", Event{Kind: KindReply, Subject: "c1-9", Outcome: Fail, SQLState: queryCanceled},
			"was not answered"},
		{"a connection is lost", "replies", Event{Kind: KindReply, Subject: "c1-9", Outcome: Unknown, Detail: "EOF"}, "EOF"},
		{"a cancelled query reads another's answer", "cancels", Event{Kind: KindCancel, Subject: "c1-9", Got: "c2-9", Outcome: OK},
			`with "c2-9"`},
		{"a cancel costs the session", "cancels", Event{Kind: KindCancel, Subject: "c1-9", Outcome: Unknown, Detail: "EOF"}, "EOF"},
		{"a setting of another's is in force", "state", Event{Kind: KindState, Subject: "c1", Outcome: OK, Got: "owner c2"}, "owner c2"},
		{"an acknowledged commit is lost", "ledger", Event{Kind: KindCommit, Subject: "c1-9", Outcome: OK}, "is not in the ledger"},
		{"a transaction ran twice", "ledger", Event{Kind: KindLedger, Subject: "c1-8"}, "2 times"},
		{"a transaction ran by half", "balances", Event{Kind: KindBalance, Subject: "3", Found: 50}, "account 3 has 50, the ledger comes to 0"},
		{"a descriptor leaks", "levels", Event{Kind: KindLevel, Subject: "descriptors", Node: "n1", Found: 71, Allowed: 70}, "descriptors of n1"},
		{"a session is left", "levels", Event{Kind: KindLevel, Subject: "sessions", Node: "n1", Found: 1}, "sessions of n1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := Check(append(goodLoad(), c.bad))
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Checker == c.checker && strings.Contains(v.Message, c.says) }) {
				t.Fatalf("want a violation of %s that says %q, have %v", c.checker, c.says, found)
			}
		})
	}
}

func TestMetricsAreSummedOverLabels(t *testing.T) {
	text := "# HELP armor_pool_open Server connections.\n# TYPE armor_pool_open gauge\n" +
		"armor_pool_open{pool=\"a b\"} 2\narmor_pool_open{pool=\"c\"} 3\ngo_goroutines 70\n"
	sums, err := sumMetrics(strings.NewReader(text))
	if err != nil || sums["armor_pool_open"] != 5 || sums["go_goroutines"] != 70 {
		t.Errorf("%v, %v", sums, err)
	}
	if _, err := sumMetrics(strings.NewReader("go_goroutines many\n")); err == nil {
		t.Error("what is no number counts as one")
	}
}

func TestTransferIsReadFromItsKey(t *testing.T) {
	want := transfer{from: "3", to: "7", amount: -42, key: "c1-5/3/7/-42"}
	if got, ok := parseTransfer(want.key); !ok || got != want {
		t.Errorf("%+v", got)
	}
	for _, key := range []string{"", "c1-5", "c1-5/3/7", "c1-5/3/7/x"} {
		if got, ok := parseTransfer(key); ok {
			t.Errorf("%q is read as %+v", key, got)
		}
	}
}
