// Package door bounds who stands at a port before it is known who it is.
//
// A connection takes a place before anything else is spent on it, and gives it up when
// its other end has proved who it is, or is gone. Places are bounded, in all and for each
// source; a newcomer always gets one, for when there is none left the oldest connection
// of the largest source goes. So a stranger who opens connections without end pushes out
// his own. Sources that have proved somebody before, and members, have places apart.
//
// It knows addresses and nothing of what is said; each port has a door of its own.
package door

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// Config is what a Door is made of. Unproven and PerSource are required.
type Config struct {
	Unproven  int           // places of strangers
	PerSource int           // of them, or of the reserve, for one address or one /64 of IPv6
	Reserve   int           // places apart, for sources that are known; 0: there are none
	FirstByte time.Duration // how long a connection may say nothing; 0: as long as it likes
	// Member says of a source that it is known before it has proved anything here. It must
	// not block; nil: none is.
	Member func(netip.Addr) bool
	// Mistakes are planted by tests.
	Mistakes Mistakes
}

// Mistakes are what the mutants of tests do wrong. Nothing else sets them.
type Mistakes struct {
	NoSourceBound bool // one source may take every place
	NoEviction    bool // who comes while all places are taken is sent away
}

// Counts is what a door has seen.
type Counts struct {
	Open    int    // unproven connections now
	Evicted uint64 // those that went for another
	Refused uint64 // those that were sent away: they said nothing in time, or there was no room
}

// Door is the places of one port. All methods may be called from any goroutine.
type Door struct {
	cfg Config

	mu        sync.Mutex // guards all below; nothing is called while held
	strangers lot
	reserved  lot
	known     memory
	entered   uint64 // so far
	evicted   uint64
	refused   uint64
}

// New makes a door that nobody stands at.
func New(cfg Config) *Door {
	if cfg.Member == nil {
		cfg.Member = func(netip.Addr) bool { return false }
	}
	return &Door{cfg: cfg, strangers: newLot(cfg.Unproven), reserved: newLot(cfg.Reserve)}
}

// Counts returns what the door has seen so far.
func (d *Door) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Counts{Open: d.strangers.count + d.reserved.count, Evicted: d.evicted, Refused: d.refused}
}

// Enter gives a connection its place; another may be closed for it. It is nil, and the
// connection closed, when there is none to be had. Connections of the zero source, whose
// source is not known yet, have no bound of their own: only all together are bounded.
func (d *Door) Enter(source netip.Addr, conn net.Conn) *Place {
	p := &Place{door: d, source: armor.SourceOf(source), conn: conn}
	member := d.isMember(p.source)
	d.mu.Lock()
	d.entered++
	p.number = d.entered
	victim, ok := d.listLocked(p, member)
	if !ok {
		d.refused++
	}
	if ok && d.cfg.FirstByte > 0 {
		p.silence = time.AfterFunc(d.cfg.FirstByte, p.endSilent)
	}
	d.mu.Unlock()
	victim.drop()
	if !ok {
		Drop(conn)
		return nil
	}
	return p
}

// isMember asks for a source that has an address.
func (d *Door) isMember(source netip.Addr) bool { return source.IsValid() && d.cfg.Member(source) }

// listLocked puts a place among those of its source. Where there are too many, another
// goes; the caller drops it.
func (d *Door) listLocked(p *Place, member bool) (victim *Place, ok bool) {
	p.lot = &d.strangers
	if d.reserved.most > 0 && (member || d.known.has(p.source)) {
		p.lot = &d.reserved
	}
	if crowd, full := d.crowdLocked(p.lot, p.source); full {
		if d.cfg.Mistakes.NoEviction || len(p.lot.sources[crowd]) == 0 {
			return nil, false
		}
		victim = p.lot.sources[crowd][0]
		victim.endLocked(Evicted)
		d.evicted++
	}
	p.lot.add(p)
	return victim, true
}

// crowdLocked returns the source that must give way before another connection may come.
func (d *Door) crowdLocked(l *lot, source netip.Addr) (netip.Addr, bool) {
	if source.IsValid() && len(l.sources[source]) >= d.cfg.PerSource && !d.cfg.Mistakes.NoSourceBound {
		return source, true
	}
	if l.count < l.most {
		return source, false
	}
	return l.largest(), true
}

// lot is places that are bounded together.
type lot struct {
	most, count int
	sources     map[netip.Addr][]*Place // each in the order in which they came
}

func newLot(most int) lot { return lot{most: most, sources: map[netip.Addr][]*Place{}} }

func (l *lot) add(p *Place) {
	l.count++
	l.sources[p.source] = append(l.sources[p.source], p)
}

func (l *lot) remove(p *Place) {
	l.count--
	list := l.sources[p.source]
	if i := slices.Index(list, p); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if l.sources[p.source] = list; len(list) == 0 {
		delete(l.sources, p.source)
	}
}

// largest returns the source with most places; among equals, the one that has waited
// longest.
func (l *lot) largest() (most netip.Addr) {
	var best []*Place
	for source, list := range l.sources {
		if len(list) > len(best) || len(list) == len(best) && list[0].number < best[0].number {
			most, best = source, list
		}
	}
	return most
}

// memoryMost bounds each half of a memory.
const memoryMost = 2048

// memory remembers the sources that have proved somebody, the latest ones.
type memory struct{ recent, former map[netip.Addr]struct{} }

func (m *memory) has(source netip.Addr) bool {
	_, recent := m.recent[source]
	_, former := m.former[source]
	return recent || former
}

func (m *memory) add(source netip.Addr) {
	if len(m.recent) >= memoryMost {
		m.recent, m.former = nil, m.recent
	}
	if m.recent == nil {
		m.recent = map[netip.Addr]struct{}{}
	}
	m.recent[source] = struct{}{}
}
