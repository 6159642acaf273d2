package tlsedge

import (
	"crypto/rand"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// remembered is how many refusals a node can explain; the oldest go first.
const remembered = 4096

// denials is a ring of the latest refusals of clients that had proved who they are.
// Strangers are not in it: a flood of them would push out what clients ask about.
type denials struct {
	node armor.NodeID // immutable

	mu   sync.Mutex // guards below
	ring []armor.DenialRecord
	next int
	byID map[string]int
}

func newDenials(node armor.NodeID) *denials {
	return &denials{node: node, byID: map[string]int{}}
}

// idLength makes 50 random bits: not to be guessed, short enough to be read aloud.
const idLength = 10

// record gives a denial its id and remembers it with what was known of the client.
func (d *denials) record(denial *armor.Denial, facts armor.Facts, revision uint64) *armor.Denial {
	named := denial.WithID(strings.ToLower(rand.Text()[:idLength]))
	d.put(armor.DenialRecord{Denial: *named, Node: d.node, At: time.Now().UTC(), Facts: facts, Revision: revision})
	return named
}

func (d *denials) put(r armor.DenialRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ring) < remembered {
		d.byID[r.Denial.ID] = len(d.ring)
		d.ring = append(d.ring, r)
		return
	}
	delete(d.byID, d.ring[d.next].Denial.ID)
	d.ring[d.next] = r
	d.byID[r.Denial.ID] = d.next
	d.next = (d.next + 1) % remembered
}

func (d *denials) get(id string) (armor.DenialRecord, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.byID[strings.ToLower(id)]
	if !ok {
		return armor.DenialRecord{}, false
	}
	return d.ring[i], true
}

// of returns the refusals of an address, the latest first.
func (d *denials) of(source netip.Addr, most int) (found []armor.DenialRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.ring {
		r := d.ring[(d.next+len(d.ring)-1-i)%len(d.ring)]
		if len(found) == most {
			break
		}
		if r.Facts.Peer.Source.Addr().Unmap() == source {
			found = append(found, r)
		}
	}
	return found
}

func (e *Edge) denied(reason armor.Reason) {
	if e.cfg.Hooks.Denied != nil {
		e.cfg.Hooks.Denied(reason)
	}
}

func staleDenial() *armor.Denial {
	return &armor.Denial{
		Reason:  armor.ReasonStale,
		Message: "this node cannot prove that its trust state is fresh",
		Detail:  "It may not know of every revocation, and serves nobody until it does.",
	}
}

func movedEnvironment() *armor.Denial {
	return &armor.Denial{
		Reason:  armor.ReasonEnvironment,
		Message: "the issuer of the client certificate now belongs to another environment",
	}
}

func movedPool() *armor.Denial {
	return &armor.Denial{
		Reason:  armor.ReasonDraining,
		Message: "the pool of this session has changed",
		Detail:  "Connect again: the grant now leads through another pool.",
	}
}
