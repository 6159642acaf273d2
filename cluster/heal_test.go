package cluster

import (
	"testing"
	"time"
)

// backAfter cuts a follower off for a minute, has something revoked meanwhile, and returns how
// long after the way is free the follower enforces it.
func backAfter(t *testing.T, mistake func(*mistakes)) (took time.Duration) {
	t.Helper()
	bubble(t, func(l *lab) { mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		follower := l.follower()
		l.net.Isolate(follower.cfg.Node)
		l.do(l.revocation("a"))
		time.Sleep(time.Minute)
		l.net.Heal()
		healed := time.Now()
		l.eventually("the follower has what it missed and serves", func() bool {
			return l.revokedOn(follower, "a") && follower.AdmitNew("prod") == nil
		})
		took = time.Since(healed)
	})
	return took
}

// The time is the bubble's, in which nothing takes any but waiting.
func TestHealedNodeServesWithinTwoSeconds(t *testing.T) {
	if took := backAfter(t, func(*mistakes) {}); took > 2*time.Second {
		t.Fatalf("after %s", took)
	}
}

func TestBackingOffIsNoticed(t *testing.T) {
	if took := backAfter(t, func(m *mistakes) { m.backOff = true }); took <= 2*time.Second {
		t.Fatalf("after %s: the test above would not notice the mistake", took)
	}
}
