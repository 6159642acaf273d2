package password

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestGuessesArePaidOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(1)
		thief := guesser{netip.MustParseAddr("192.0.2.1"), "spiffe://a/b"}
		tried := 0
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for g.allow(thief) {
				g.failed(thief)
				tried++
			}
		}
		if tried < 600 || tried > 610 {
			t.Errorf("%d guesses in 10 minutes", tried)
		}
		for range 500 { // begun at once, while it was allowed
			g.failed(thief)
		}
		for _, other := range []guesser{{netip.MustParseAddr("192.0.2.2"), thief.identity}, {thief.source, "spiffe://a/c"}} {
			if !g.allow(other) {
				t.Errorf("%v pays for another's guesses", other)
			}
		}
		time.Sleep(50 * time.Second)
		if g.allow(thief) {
			t.Error("500 guesses were paid off in 50 s")
		}
		time.Sleep(2 * time.Second)
		if !g.allow(thief) {
			t.Error("nobody waits for longer than a minute")
		}
	})
}

func TestGuessersAreForgottenOnceTheyOweNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(1)
		source := netip.MustParseAddr("192.0.2.1")
		for n := range maxGuessers {
			g.failed(guesser{source, armor.Identity(fmt.Sprint(n))})
		}
		if g.allow(guesser{source, "new"}) || !g.allow(guesser{source, "0"}) {
			t.Error("the bound on memory does not hold, or holds those who are known")
		}
		time.Sleep(2 * time.Second)
		if !g.allow(guesser{source, "new"}) || len(g.owed) != 0 {
			t.Errorf("%d are remembered who owe nothing", len(g.owed))
		}
	})
}
