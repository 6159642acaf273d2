package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Violation is a promise that a history shows broken.
type Violation struct {
	Checker string `json:"checker"`
	Message string `json:"message"`
}

// String is "checker: message".
func (v Violation) String() string { return v.Checker + ": " + v.Message }

// A checker returns the violations it finds. An empty history breaks nothing but
// proves nothing either: see Coverage.
type checker struct {
	name  string
	check func([]Event) []string
}

// checkers are all of them, in the order of their reports.
var checkers = []checker{
	{"revocation", checkRevocation},
	{"availability", checkAvailability},
	{"ledger", checkLedger},
	{"budget", checkBudget},
	{"replies", checkReplies},
	{"cancels", checkCancels},
	{"state", checkState},
	{"balances", checkBalances},
	{"levels", checkLevels},
	{"intruders", checkIntruders},
	{"undisturbed", checkUndisturbed},
	{"terms", checkTerms},
	{"clocks", checkClocks},
}

// Check runs every checker over a history.
func Check(events []Event) []Violation {
	var all []Violation
	for _, c := range checkers {
		for _, message := range c.check(events) {
			all = append(all, Violation{Checker: c.name, Message: message})
		}
	}
	return all
}

// Coverage counts what a history contains of each kind and outcome. A run is worth
// something only when revocations, commits, faults and backends are all there.
func Coverage(events []Event) map[string]int {
	counts := map[string]int{}
	for _, e := range events {
		key := string(e.Kind)
		if e.Outcome != "" {
			key += " " + string(e.Outcome)
		}
		counts[key]++
	}
	return counts
}

// demanded are, by scenario, the observations without which a run proves nothing.
var demanded = map[string][]string{
	failoverName: {"revoke ok", "connect ok", "connect fail", "query ok", "reach ok", "commit ok", "ledger", "backend", "fault"},
	loadName: {"reply ok", "cancel ok", "cancel fail", "state ok", "commit ok", "commit fail", "commit unknown",
		"ledger", "balance", "level", "backend", "fault"},
	hostileName: {"revoke ok", "connect fail", "query ok", "reach ok", "commit ok", "ledger", "backend", "intruder fail", "steady ok",
		"term", "clock", "harm", "canary ok"},
}

// Missing lists what a run should have observed and has not.
func Missing(events []Event) []string {
	counts := Coverage(events)
	var missing []string
	for _, key := range demanded[cmp.Or(settings(events).Subject, failoverName)] {
		if counts[key] == 0 {
			missing = append(missing, key)
		}
	}
	return missing
}

// checkRevocation: once a revocation was reported enforced, no session with that
// certificate begins, and nothing that is asked on a live one is answered. What was
// asked before may have been under way.
func checkRevocation(events []Event) []string {
	enforced := map[string]time.Duration{}
	for _, e := range events {
		if e.Kind != KindRevoke || e.Outcome != OK {
			continue
		}
		if at, ok := enforced[e.Subject]; !ok || e.End < at {
			enforced[e.Subject] = e.End
		}
	}
	var found []string
	for _, e := range events {
		at, revoked := enforced[e.Subject]
		if !revoked || e.Outcome != OK || e.Start < at {
			continue
		}
		switch e.Kind {
		case KindConnect:
			found = append(found, fmt.Sprintf("certificate %s was enforced as revoked at %s, yet a session on %s begun at %s was served",
				e.Subject, at, e.Node, e.Start))
		case KindQuery:
			found = append(found, fmt.Sprintf("certificate %s was enforced as revoked at %s, yet a query sent on %s at %s was answered at %s",
				e.Subject, at, e.Node, e.Start, e.End))
		}
	}
	return found
}

// checkAvailability: a client whose certificate is valid is never told otherwise, and
// never goes unserved by all nodes for longer than the lease allows.
func checkAvailability(events []Event) []string {
	patience := settings(events).Patience
	var found []string
	attempts := map[string][]Event{}
	for _, e := range events {
		if e.Kind != KindReach {
			continue
		}
		if e.SQLState == "28000" {
			found = append(found, fmt.Sprintf("%s holds a valid certificate and was refused at %s: %s", e.Subject, e.End, e.Detail))
		}
		attempts[e.Subject] = append(attempts[e.Subject], e)
	}
	for subject, list := range attempts {
		slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.Start, b.Start) })
		since := list[0].Start
		for _, e := range list {
			if gap := e.End - since; gap > patience {
				found = append(found, fmt.Sprintf("%s was not served between %s and %s, longer than %s", subject, since, e.End, patience))
			}
			if e.Outcome == OK {
				since = e.End
			}
		}
	}
	slices.Sort(found)
	return found
}

// checkLedger: every transaction whose COMMIT was answered is in the ledger exactly
// once, one that was refused is not, one of unknown outcome at most once, and nothing
// else is there.
func checkLedger(events []Event) []string {
	rows := map[string]int{}
	outcome := map[string]Outcome{}
	for _, e := range events {
		switch e.Kind {
		case KindLedger:
			rows[e.Subject]++
		case KindCommit:
			outcome[e.Subject] = e.Outcome
		}
	}
	var found []string
	for subject, o := range outcome {
		switch n := rows[subject]; {
		case n > 1:
			found = append(found, fmt.Sprintf("transaction %s is in the ledger %d times", subject, n))
		case o == OK && n == 0:
			found = append(found, fmt.Sprintf("transaction %s was acknowledged and is not in the ledger", subject))
		case o == Fail && n == 1:
			found = append(found, fmt.Sprintf("transaction %s was refused and is in the ledger", subject))
		}
	}
	for subject := range rows {
		if _, tried := outcome[subject]; !tried {
			found = append(found, fmt.Sprintf("the ledger holds %s, which nobody wrote", subject))
		}
	}
	slices.Sort(found)
	return found
}

// checkBudget sweeps over PostgreSQL's own log: at no instant are more of the pool's
// backends alive than its budget.
func checkBudget(events []Event) []string {
	budget := settings(events).Budget
	type step struct {
		at    time.Duration
		delta int
	}
	var steps []step
	for _, e := range events {
		if e.Kind != KindBackend {
			continue
		}
		steps = append(steps, step{e.Start, 1})
		if e.End != 0 {
			steps = append(steps, step{e.End, -1})
		}
	}
	// The log's clock has milliseconds: within one, ends come before beginnings.
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.delta, b.delta)) })
	var found []string
	alive, worst := 0, budget
	for _, s := range steps {
		alive += s.delta
		if alive > worst {
			worst = alive
			found = []string{fmt.Sprintf("%d backends at %s, the budget is %d", alive, s.at, budget)}
		}
	}
	return found
}

func settings(events []Event) Event {
	for _, e := range events {
		if e.Kind == KindSettings {
			return e
		}
	}
	return Event{}
}
