package chaos

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const second = time.Second

// good is a history in which every promise was kept, faults and unknowns included.
func good() []Event {
	return []Event{
		{Kind: KindSettings, Subject: failoverName, Budget: 2, Patience: 15 * second},
		{Kind: KindConnect, Subject: "c1", Node: "n1", Start: 1 * second, End: 2 * second, Outcome: OK},
		{Kind: KindQuery, Subject: "c1", Node: "n1", Start: 2 * second, End: 3 * second, Outcome: OK},
		{Kind: KindQuery, Subject: "c1", Node: "n1", Start: 4 * second, End: 6 * second, Outcome: OK}, // asked before it was enforced
		{Kind: KindRevoke, Subject: "c1", Start: 4 * second, End: 5 * second, Outcome: OK},
		{Kind: KindQuery, Subject: "c1", Node: "n1", Start: 7 * second, End: 8 * second, Outcome: Unknown},
		{Kind: KindConnect, Subject: "c1", Node: "n2", Start: 7 * second, End: 8 * second, Outcome: Fail, SQLState: "28000"},
		{Kind: KindRevoke, Subject: "c2", Start: 4 * second, End: 5 * second, Outcome: Unknown},
		{Kind: KindConnect, Subject: "c2", Node: "n2", Start: 6 * second, End: 7 * second, Outcome: OK}, // nobody said enforced
		{Kind: KindFault, Subject: "kill", Node: "n1", Start: 8 * second, End: 9 * second},
		{Kind: KindReach, Subject: "app", Start: 1 * second, End: 2 * second, Outcome: OK},
		{Kind: KindReach, Subject: "app", Start: 3 * second, End: 9 * second, Outcome: Fail, SQLState: "57P03"},
		{Kind: KindReach, Subject: "app", Start: 10 * second, End: 16 * second, Outcome: OK},
		{Kind: KindCommit, Subject: "t1", Start: 1 * second, End: 2 * second, Outcome: OK},
		{Kind: KindCommit, Subject: "t2", Start: 1 * second, End: 2 * second, Outcome: Unknown},
		{Kind: KindCommit, Subject: "t3", Start: 1 * second, End: 2 * second, Outcome: Unknown},
		{Kind: KindCommit, Subject: "t4", Start: 1 * second, End: 2 * second, Outcome: Fail},
		{Kind: KindLedger, Subject: "t1"},
		{Kind: KindLedger, Subject: "t2"},
		{Kind: KindBackend, Subject: "100", Start: 1 * second, End: 5 * second},
		{Kind: KindBackend, Subject: "101", Start: 1 * second},
		{Kind: KindBackend, Subject: "102", Start: 5 * second, End: 6 * second}, // the moment 100 ends
	}
}

func TestGoodHistoryPasses(t *testing.T) {
	if found := Check(good()); len(found) != 0 {
		t.Fatalf("a good history has violations: %v", found)
	}
	if missing := Missing(good()); len(missing) != 0 {
		t.Fatalf("missing: %v", missing)
	}
}

func TestEachCheckerRejectsItsBadHistory(t *testing.T) {
	cases := []struct {
		name    string
		checker string
		bad     Event
		says    string
	}{
		{"a session begins after enforced", "revocation",
			Event{Kind: KindConnect, Subject: "c1", Node: "n3", Start: 5*second + 1, End: 6 * second, Outcome: OK}, "was served"},
		{"a byte is forwarded after enforced", "revocation",
			Event{Kind: KindQuery, Subject: "c1", Node: "n1", Start: 5*second + 1, End: 6 * second, Outcome: OK}, "was answered"},
		{"a valid client is called invalid", "availability",
			Event{Kind: KindReach, Subject: "app", Start: 17 * second, End: 18 * second, Outcome: Fail, SQLState: "28000"}, "was refused"},
		{"a valid client waits too long", "availability",
			Event{Kind: KindReach, Subject: "app", Start: 17 * second, End: 32 * second, Outcome: Fail, SQLState: "57P03"}, "was not served"},
		{"an acknowledged commit is lost", "ledger", Event{Kind: KindCommit, Subject: "t9", Outcome: OK}, "is not in the ledger"},
		{"a transaction ran twice", "ledger", Event{Kind: KindLedger, Subject: "t1"}, "2 times"},
		{"a refused transaction ran", "ledger", Event{Kind: KindLedger, Subject: "t4"}, "was refused"},
		{"a row came from nowhere", "ledger", Event{Kind: KindLedger, Subject: "t77"}, "nobody wrote"},
		{"one backend too many", "budget", Event{Kind: KindBackend, Subject: "103", Start: 2 * second, End: 3 * second}, "3 backends"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := Check(append(good(), c.bad))
			if len(found) == 0 {
				t.Fatal("the bad history passes")
			}
			for _, v := range found {
				if v.Checker == c.checker && strings.Contains(v.Message, c.says) {
					return
				}
			}
			t.Fatalf("want a violation of %s that says %q, have %v", c.checker, c.says, found)
		})
	}
}

func TestEmptyHistoryProvesNothing(t *testing.T) {
	if len(Missing(nil)) != len(demanded[failoverName]) {
		t.Fatal("an empty history counts as proof")
	}
}

func TestHistorySurvivesItsFile(t *testing.T) {
	var file bytes.Buffer
	h := NewHistory(&file)
	for _, e := range good() {
		h.Add(e)
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(read) != len(good()) || read[3] != good()[3] {
		t.Fatalf("read back %d events, want %d", len(read), len(good()))
	}
}

func TestBrokenHistoryNamesTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, []byte("{}\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHistory(path); err == nil || !strings.Contains(err.Error(), ":2:") {
		t.Fatalf("err = %v", err)
	}
}
