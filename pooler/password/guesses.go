package password

import (
	"net/netip"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

const (
	// maxGuessers bounds the memory spent on those who have failed.
	maxGuessers = 4096
	// longestOwed is how many guesses somebody can owe: the wait for the next one is
	// that divided by the rate, less the burst.
	longestOwed = 60
)

// guesser is somebody who may guess passwords: one identity at one source.
type guesser struct {
	source   netip.Addr
	identity armor.Identity
}

func guesserOf(peer armor.Peer) guesser {
	return guesser{source: armor.SourceOf(peer.Source.Addr()), identity: peer.Leaf.Identity}
}

// guesses limits how often passwords can be guessed. Only failures count, so that an
// application that opens many connections at once is not held up. Those that begin at
// once are all let through, and owed: no further one is until they are paid off.
type guesses struct {
	perSecond float64
	burst     float64

	mu   sync.Mutex // guards below
	owed map[guesser]debt
}

// debt is how many guesses were owed at a time.
type debt struct {
	count float64
	at    time.Time
}

func newGuesses(perSecond float64) *guesses {
	return &guesses{perSecond: perSecond, burst: max(1, 10*perSecond), owed: map[guesser]debt{}}
}

// allow reports whether a guess may begin.
func (g *guesses) allow(who guesser) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.owed[who]; !known && len(g.owed) >= maxGuessers && !g.forgetLocked() {
		return false
	}
	return g.owedLocked(who, time.Now())+1 <= g.burst
}

// failed counts one that was wrong.
func (g *guesses) failed(who guesser) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.owed[who] = debt{min(g.owedLocked(who, now)+1, longestOwed), now}
}

func (g *guesses) owedLocked(who guesser, now time.Time) float64 {
	d := g.owed[who]
	return max(0, d.count-now.Sub(d.at).Seconds()*g.perSecond)
}

// forgetLocked drops those who owe nothing, and reports whether there is room then.
func (g *guesses) forgetLocked() bool {
	now := time.Now()
	for who := range g.owed {
		if g.owedLocked(who, now) == 0 {
			delete(g.owed, who)
		}
	}
	return len(g.owed) < maxGuessers
}
