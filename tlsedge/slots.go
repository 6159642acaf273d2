package tlsedge

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/armordb/armordb/armor"
)

// slots bounds connections: all of them, those whose client has not proved itself
// yet, and of these, those of one source. A connection takes its slot before
// anything else is spent on it.
//
// When the unproven ones are too many, the oldest that has not said a word gives
// way, so that half-open connections cannot keep out clients that speak.
type slots struct {
	sessions, handshakes, perSource int // immutable

	mu      sync.Mutex // guards below; nothing is called while held
	open    int
	waiting int // unproven, of all sources
	sources map[netip.Addr][]*slot
}

// slot is one connection's place. Its fields are guarded by slots.mu.
type slot struct {
	in     *slots
	source netip.Addr
	conn   net.Conn
	silent bool // nothing was received yet
	listed bool // counts as unproven
}

func newSlots(sessions, handshakes, perSource int) *slots {
	return &slots{sessions: sessions, handshakes: handshakes, perSource: perSource, sources: map[netip.Addr][]*slot{}}
}

// take reserves a place, or returns nil. The caller closes the connection that was
// evicted for it, if there is one. Connections of the zero source, whose source is not
// known yet, have no bound of their own: only all together are bounded.
func (s *slots) take(source netip.Addr, conn net.Conn) (place *slot, evicted net.Conn) {
	source = armor.SourceOf(source)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.sessions {
		return nil, nil
	}
	place = &slot{in: s, source: source, conn: conn, silent: true}
	evicted, ok := s.listLocked(place)
	if !ok {
		return nil, nil
	}
	s.open++
	return place, evicted
}

// listLocked counts a place among the unproven ones of its source. Where there are too
// many of these, another gives way, or the answer is no.
func (s *slots) listLocked(p *slot) (evicted net.Conn, ok bool) {
	if crowd, full := s.crowdLocked(p.source); full {
		victim := oldestSilent(s.sources[crowd])
		if victim == nil {
			return nil, false
		}
		s.unlistLocked(victim)
		evicted = victim.conn
	}
	p.listed = true
	s.waiting++
	s.sources[p.source] = append(s.sources[p.source], p)
	return evicted, true
}

// move counts a place for the source that a balancer has named meanwhile. It reports
// false when that source has too many. The caller closes the connection that was evicted.
func (p *slot) move(source netip.Addr) (evicted net.Conn, ok bool) {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	if !p.listed {
		return nil, false // it was evicted meanwhile
	}
	p.in.unlistLocked(p)
	p.source = armor.SourceOf(source)
	return p.in.listLocked(p)
}

// crowdLocked returns the source that must give way before another may come.
func (s *slots) crowdLocked(source netip.Addr) (netip.Addr, bool) {
	if source.IsValid() && len(s.sources[source]) >= s.perSource {
		return source, true
	}
	if s.waiting < s.handshakes {
		return source, false
	}
	most := source
	for a, list := range s.sources {
		if len(list) > len(s.sources[most]) {
			most = a
		}
	}
	return most, true
}

func oldestSilent(list []*slot) *slot {
	for _, p := range list {
		if p.silent {
			return p
		}
	}
	return nil
}

func (s *slots) unlistLocked(p *slot) {
	if !p.listed {
		return
	}
	p.listed = false
	s.waiting--
	list := s.sources[p.source]
	for i, other := range list {
		if other == p {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.sources, p.source)
		return
	}
	s.sources[p.source] = list
}

// spoke says that the client has sent something.
func (p *slot) spoke() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.silent = false
}

// proven gives the handshake's place back and keeps the connection's.
func (p *slot) proven() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.unlistLocked(p)
}

// free gives all back; it is called once.
func (p *slot) free() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.unlistLocked(p)
	p.in.open--
}

// maxCancelSources bounds the memory spent on rate limits of cancel requests.
const maxCancelSources = 4096

// cancels limits the rate of cancel requests of each source: their keys are short
// enough to be guessed by somebody who may try without end.
type cancels struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex // guards below
	sources map[netip.Addr]*rate.Limiter
}

func newCancels(perSecond float64) *cancels {
	return &cancels{limit: rate.Limit(perSecond), burst: max(1, int(2*perSecond)), sources: map[netip.Addr]*rate.Limiter{}}
}

// allow reports whether a source may send one more now.
func (c *cancels) allow(source netip.Addr) bool {
	source = armor.SourceOf(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	limiter := c.sources[source]
	if limiter == nil {
		if len(c.sources) >= maxCancelSources && !c.forgetLocked() {
			return false
		}
		limiter = rate.NewLimiter(c.limit, c.burst)
		c.sources[source] = limiter
	}
	return limiter.Allow()
}

// forgetLocked drops the sources that have all of their allowance back, about
// which there is nothing to remember.
func (c *cancels) forgetLocked() bool {
	for source, limiter := range c.sources {
		if limiter.Tokens() >= float64(c.burst) {
			delete(c.sources, source)
		}
	}
	return len(c.sources) < maxCancelSources
}
