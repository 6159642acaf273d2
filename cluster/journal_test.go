package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// lineLog keeps what a node logs from a level on.
type lineLog struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// lines are those that hold all words.
func (l *lineLog) lines(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		missing := false
		for _, w := range words {
			missing = missing || !strings.Contains(line, w)
		}
		if !missing {
			found = append(found, line)
		}
	}
	return found
}

func (l *lineLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// audited revokes something beside a node that logs, and returns its lines about that.
func audited(t *testing.T, wrong mistakes) (lines []string) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 2, func(t *testing.T, l *lab) {
		var log lineLog
		n := l.restart("n2", func(c *Config) { c.Logger = log.logger() })
		l.do(l.revocation("stolen"))
		l.eventually("n2 has it", func() bool { return l.revokedOn(n, "stolen") })
		l.stop(n)
		if replayed := log.lines("method=bootstrap"); len(replayed) > 0 {
			t.Errorf("what was replayed has lines: %q", replayed)
		}
		lines = log.lines("level=INFO", "change committed", "principal=", "method=revoke", "key ", "revision=", "request_id=")
	})
	return lines
}

func TestACommittedChangeLeavesOneLine(t *testing.T) {
	if lines := audited(t, mistakes{}); len(lines) != 1 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if lines := audited(t, mistakes{keepMum: true}); len(lines) != 0 {
		t.Errorf("a node that says nothing is not noticed: %q", lines)
	}
}

// complained returns how many lines above debug name a peer that was dead for ten minutes.
func complained(t *testing.T, wrong mistakes) (lines int) {
	bubble(t, func(l *lab) { *l.mistakes = wrong }, 3, func(t *testing.T, l *lab) {
		var log lineLog
		l.restart("n1", func(c *Config) { c.Logger = log.logger() })
		l.restart("n2", func(c *Config) { c.Logger = log.logger() })
		l.leader()
		l.crash(l.get("n3"))
		before := len(log.lines("library.", "n3"))
		time.Sleep(10 * time.Minute)
		lines = len(log.lines("library.", "n3")) - before
	})
	return lines
}

func TestADeadPeerIsALineAMinute(t *testing.T) {
	if lines := complained(t, mistakes{}); lines > 20 || lines == 0 { // of two nodes that may lead
		t.Errorf("%d lines in ten minutes", lines)
	}
	if lines := complained(t, mistakes{tellAll: true}); lines <= 20 {
		t.Errorf("a node that tells all has %d lines", lines)
	}
}

func TestAFullJournalCountsWhatItLost(t *testing.T) {
	var log lineLog
	j := newJournal(log.logger())
	for range journalLines + 5 {
		j.note(nil, armor.Result{})
	}
	for range journalLines {
		<-j.lines
	}
	j.note(nil, armor.Result{})
	if j.lost.Load() != 5 {
		t.Errorf("%d lines were lost", j.lost.Load())
	}
}
