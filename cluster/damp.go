package cluster

import (
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// damper lets a library complain of each peer once in a while: Raft has some forty lines a
// minute for a peer that is dead, each of which says the same.
type damper struct {
	mu    sync.Mutex // guards below
	peers map[string]*complaints
	every bool // a mutant of our tests lets every line through
}

// complaints are those of one peer.
type complaints struct {
	last time.Time // when a line was written
	held int       // lines since then that were not
}

const (
	// dampedFor is how long nothing more is said of a peer.
	dampedFor = time.Minute
	// maxDamped bounds the peers that are remembered.
	maxDamped = 1024
)

// passes reports whether a line may be written, and how many of its peer were held back
// before it.
func (d *damper) passes(msg string, args []any) (held int, ok bool) {
	peer := peerOf(args)
	if peer == "" || !strings.HasPrefix(msg, "failed to ") || d.every {
		return 0, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, met := d.peers[peer]
	if !met {
		if len(d.peers) >= maxDamped {
			clear(d.peers)
		}
		d.peers[peer] = &complaints{last: time.Now()}
		return 0, true
	}
	if time.Since(c.last) < dampedFor {
		c.held++
		return 0, false
	}
	held, c.held, c.last = c.held, 0, time.Now()
	return held, true
}

// peerOf is the peer that a line of Raft's is about; empty: none.
func peerOf(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] != "peer" && args[i] != "server-id" && args[i] != "target" {
			continue
		}
		switch peer := args[i+1].(type) {
		case raft.Server:
			return string(peer.ID)
		case raft.ServerID:
			return string(peer)
		case raft.ServerAddress: // an address is an id: see transport
			return string(peer)
		}
	}
	return ""
}
