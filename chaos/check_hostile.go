package chaos

import (
	"fmt"
	"time"
)

// checkIntruders: who has no grant, no registered CA, or a certificate that was revoked
// before, is let in by nobody.
func checkIntruders(events []Event) []string {
	var found []string
	for _, e := range events {
		if e.Kind == KindIntruder && e.Outcome == OK {
			found = append(found, fmt.Sprintf("the client called %s was served by %s at %s", e.Subject, e.Node, e.End))
		}
	}
	return found
}

// checkUndisturbed: no node ends, sends a valid client away or refuses one, and when all is
// over operators can do what they do.
func checkUndisturbed(events []Event) []string {
	var found []string
	for _, e := range events {
		switch {
		case e.Kind == KindCrash:
			found = append(found, fmt.Sprintf("%s ended by itself", e.Node))
		case e.Kind == KindSteady && e.Outcome == Fail:
			found = append(found, fmt.Sprintf("a valid client's %s on %s at %s was refused: %s %s", e.Subject, e.Node, e.End, e.SQLState, e.Detail))
		case e.Kind == KindCanary && e.Outcome != OK:
			found = append(found, fmt.Sprintf("when all was over, %s failed: %s", e.Subject, e.Detail))
		}
	}
	return found
}

// farTerm is how far one word may move the term: beyond it no node believes another.
const farTerm = 1 << 20

// checkTerms: one node's word ends a term now and then, and not more often. The numbers may
// be far apart, since the thief chooses them within reach, so those that were seen count.
func checkTerms(events []Event) []string {
	seen := map[int]bool{}
	first, last := Event{}, Event{}
	for _, e := range events {
		if e.Kind != KindTerm {
			continue
		}
		if len(seen) == 0 {
			first = e
		}
		seen[e.Found], last = true, e
	}
	most := mostTerms(last.End - first.Start)
	if len(seen) > most || last.Found-first.Found > most*farTerm {
		return []string{fmt.Sprintf("%d terms were seen, from %d to %d, and one node may end %d at most in that time",
			len(seen), first.Found, last.Found, most)}
	}
	return nil
}

// mostTerms is how many terms may go by in some time. A leader lets another node's answer
// end its term at once, and then after 2, 4, 8 s and so on up to a minute; each of two nodes
// that may lead in turn counts for itself; and an election may take three terms, since
// the thief votes as it likes.
func mostTerms(d time.Duration) int {
	raises := 1
	for at, wait := time.Duration(0), 2*time.Second; at+wait <= d; wait = min(2*wait, time.Minute) {
		at += wait
		raises++
	}
	return 3 * 2 * (raises + 1)
}

// maxClockMove is how far a clock may seem to be off, by how long it took to ask.
const maxClockMove = 1000

// checkClocks: the log's time never gets ahead of this machine's, and no node takes its own
// clock, which is this machine's, for a wrong one.
func checkClocks(events []Event) []string {
	var found []string
	for _, e := range events {
		if e.Kind != KindClock {
			continue
		}
		if e.Found > maxClockMove || e.Subject != logClock && e.Found < -maxClockMove {
			found = append(found, fmt.Sprintf("the clock of %s was %d ms ahead at %s", e.Subject, e.Found, e.End))
		}
	}
	return found
}

// logClock is the log's time among the clocks.
const logClock = "log"
