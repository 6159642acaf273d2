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

	mu   sync.Mutex // guards below
	said map[string]time.Duration
	// pretending is since when a node answers as the leader whom Raft does not name.
	pretending map[armor.NodeID]time.Duration
}

// hearsayTime is how much earlier than by Raft's own messages a node may learn of its
// leader by an answer.
const hearsayTime = 5 * time.Second

// sayAgain is how long what goes on stays unsaid after it was said.
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

// pretends notes that a node answered as the leader, rightly or not, and reports whether
// it has done so wrongly for longer than a new leader needs to make itself known.
func (s *suspicions) pretends(node armor.NodeID, now time.Duration, wrongly bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, before := s.pretending[node]
	switch {
	case !wrongly:
		delete(s.pretending, node)
		return false
	case before:
		return now-since > hearsayTime
	case s.pretending == nil || len(s.pretending) >= maxSaid:
		s.pretending = map[armor.NodeID]time.Duration{}
	}
	s.pretending[node] = now
	return false
}

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
