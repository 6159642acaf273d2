package cluster

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/armordb/armordb/armor"
)

// replays returns how many commands a node replays that had ended in order.
func replays(t *testing.T, wrong mistakes) (lines int) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 1, func(t *testing.T, l *lab) {
		for i := range 20 {
			l.do(l.revocation(fmt.Sprint(i)))
		}
		var log lineLog
		n := l.restart("n1", func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		l.leader()
		l.eventually("n1 has it all", func() bool { return l.revokedOn(n, "19") })
		l.stop(n)
		lines = len(log.lines("level=DEBUG", "change committed", "method=revoke"))
	})
	return lines
}

func TestANodeThatEndedInOrderReplaysNothing(t *testing.T) {
	if lines := replays(t, mistakes{}); lines != 0 {
		t.Errorf("%d commands were replayed", lines)
	}
	if lines := replays(t, mistakes{replayAll: true}); lines != 20 {
		t.Errorf("a node without a snapshot at its end replays %d of 20", lines)
	}
}

func TestSnapshotsArePacedByWhatTheyCost(t *testing.T) {
	s := &armor.State{}
	if due := replayed(s, 8192); due != leastReplayed {
		t.Errorf("of a small state after %d entries", due)
	}
	rows := make([]armor.Revocation, 128*1000)
	for i := range rows {
		rows[i].Selector = armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{byte(i), byte(i >> 8), byte(i >> 16)}}
	}
	s.Revocations = s.Revocations.With(rows...)
	if due := replayed(s, 8192); due != 1000 {
		t.Errorf("of 128,000 rows after %d entries", due)
	}
	if due := replayed(s, 600); due != 600 {
		t.Errorf("at most after 600 entries: %d", due)
	}
}
