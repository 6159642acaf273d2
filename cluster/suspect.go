package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Suspicions count what other nodes sent that an honest node does not send: since the
// process began. Any of them that rises means a stolen key, or a fault of ours.
type Suspicions struct {
	Answers  uint64 // freshness from a node that does not lead
	Reports  uint64 // enforcement of what is not committed
	Messages uint64 // Raft messages and answers that were refused
}

// suspicions are the counters behind Suspicions.
type suspicions struct {
	answers, reports, messages atomic.Uint64

	mu   sync.Mutex // guards said
	said map[string]time.Duration
}

// sayAgain is how long a suspicion of one node stays unsaid after it was said.
const sayAgain = time.Minute

// Suspicions returns the counters.
func (n *Node) Suspicions() Suspicions {
	s := &n.suspicions
	return Suspicions{Answers: s.answers.Load(), Reports: s.reports.Load(), Messages: s.messages.Load()}
}

// suspect counts what a node has done, and says so, now and then.
func (n *Node) suspect(count *atomic.Uint64, node armor.NodeID, what string) {
	count.Add(1)
	if n.suspicions.due(what+string(node), n.cfg.Clock.Boot()) {
		n.cfg.Logger.Warn("suspicious peer", armor.KeyPeer, string(node), armor.KeyReason, what)
	}
}

// maxSaid bounds what is remembered of what was said.
const maxSaid = 256

func (s *suspicions) due(what string, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, said := s.said[what]; said && now-last < sayAgain {
		return false
	}
	if s.said == nil || len(s.said) >= maxSaid {
		s.said = map[string]time.Duration{}
	}
	s.said[what] = now
	return true
}
