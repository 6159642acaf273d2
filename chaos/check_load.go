package chaos

import (
	"fmt"
	"slices"
)

// checkReplies: whoever asks gets an answer, and it is the answer to what was asked. A
// load has no faults but the clients' own, so that nobody is refused or left alone.
func checkReplies(events []Event) []string {
	var found []string
	for _, e := range events {
		switch {
		case e.Kind != KindReply:
		case e.Outcome != OK:
			found = append(found, fmt.Sprintf("%s on %s was not answered at %s: %s %s", e.Subject, e.Node, e.End, e.SQLState, e.Detail))
		case e.Got != e.Subject:
			found = append(found, fmt.Sprintf("%s on %s was answered at %s with %q", e.Subject, e.Node, e.End, e.Got))
		}
	}
	return found
}

// queryCanceled is PostgreSQL's SQLSTATE for a query that a cancel request has ended.
const queryCanceled = "57014"

// checkCancels: who cancels reads the answer or that it was cancelled, and nothing else.
// A cancel that hits somebody else shows among the replies.
func checkCancels(events []Event) []string {
	var found []string
	for _, e := range events {
		switch {
		case e.Kind != KindCancel:
		case e.Outcome == OK && e.Got != e.Subject:
			found = append(found, fmt.Sprintf("%s on %s was cancelled and answered at %s with %q", e.Subject, e.Node, e.End, e.Got))
		case e.Outcome != OK && e.SQLState != queryCanceled:
			found = append(found, fmt.Sprintf("%s on %s was cancelled and ended at %s with %s %s", e.Subject, e.Node, e.End, e.SQLState, e.Detail))
		}
	}
	return found
}

// checkState: nobody meets what another client has left in a session.
func checkState(events []Event) []string {
	var found []string
	for _, e := range events {
		if e.Kind == KindState && e.Got != "" {
			found = append(found, fmt.Sprintf("%s on %s met at %s what it had not left: %s", e.Subject, e.Node, e.End, e.Got))
		}
	}
	return found
}

// checkBalances: what is on the accounts is what the rows of the ledger have moved, so
// that no transaction was done by half.
func checkBalances(events []Event) []string {
	want := map[string]int{}
	for _, e := range events {
		if e.Kind != KindLedger {
			continue
		}
		if t, ok := parseTransfer(e.Subject); ok {
			want[t.from] -= t.amount
			want[t.to] += t.amount
		}
	}
	var found []string
	for _, e := range events {
		if e.Kind == KindBalance && e.Found != want[e.Subject] {
			found = append(found, fmt.Sprintf("account %s has %d, the ledger comes to %d", e.Subject, e.Found, want[e.Subject]))
		}
	}
	slices.Sort(found)
	return found
}

// checkLevels: when all clients are gone, everything is back to where it was.
func checkLevels(events []Event) []string {
	var found []string
	for _, e := range events {
		if e.Kind == KindLevel && e.Found > e.Allowed {
			found = append(found, fmt.Sprintf("%s of %s: %d are left, at most %d should be", e.Subject, e.Node, e.Found, e.Allowed))
		}
	}
	return found
}
