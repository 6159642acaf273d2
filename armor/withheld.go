package armor

import (
	"fmt"
	"strings"
	"time"
)

// Withheld is a part of a pool's budget that is kept for a node that cannot use it: nobody
// else may have it before that node is known to have let go.
type Withheld struct {
	Pool  string // pool key
	Node  NodeID
	Count int // server connections
	// Why is for people. It says how to go on where that is an operator's to do.
	Why string
	// Until is when it ends at the latest, where that is known; else zero.
	Until time.Time
}

// Withheld returns what is withheld as far as the state says, in the order of the shares'
// keys: of removed nodes all that is granted, of members what is above their target.
func (s *State) Withheld() []Withheld {
	var all []Withheld
	for share := range s.Shares.Values() {
		w := Withheld{Pool: share.Pool, Node: share.Node, Count: share.Granted}
		switch tombstone, removed := s.Tombstones.Get(string(share.Node)); {
		case s.Members.Has(string(share.Node)):
			w.Count = share.Granted - share.Target
			w.Why = "it has not said yet that it has closed them"
		case removed:
			w.Why = fmt.Sprintf("it was removed at %s, and PostgreSQL may still have them", tombstone.RemovedAt.UTC().Format(time.RFC3339))
		}
		if w.Count > 0 {
			all = append(all, w)
		}
	}
	return all
}

// WithheldWords tells people what is withheld of one pool; nothing if nothing is.
func WithheldWords(all []Withheld, pool string) string {
	var words []string
	for _, w := range all {
		if w.Pool == pool {
			words = append(words, w.String())
		}
	}
	return strings.Join(words, "; ")
}

// String leaves the pool out.
func (w Withheld) String() string {
	until := ""
	if !w.Until.IsZero() {
		until = ", until " + w.Until.Add(time.Second-time.Nanosecond).UTC().Format(time.RFC3339) // never too early
	}
	return fmt.Sprintf("%d withheld for node %s: %s%s", w.Count, w.Node, w.Why, until)
}
