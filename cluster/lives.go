package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// lives is the leader's memory of one tenure: until when each life of each node may
// serve without having asked again, and what each has enforced.
type lives struct {
	clock    Clock
	mistakes *mistakes

	mu      sync.Mutex // guards all below
	nodes   map[armor.NodeID]*nodeLives
	changed chan struct{} // closed and replaced with each report
}

// nodeLives is what is known of one node.
type nodeLives struct {
	// inherited is the boot instant until which a grant of an earlier leader may run
	// in a life of the node that this leader has not met. Zero: none.
	inherited time.Duration
	heir      uint64           // the life that took over what was inherited
	lives     map[uint64]*life // by epoch
	latest    uint64           // epoch that reported last
	waiting   uint64           // epoch that is granted nothing, since another life may serve; zero: none
	since     time.Duration    // boot instant at which it first was not
}

// life is one start of a node's process.
type life struct {
	bound    time.Duration // boot instant until which its grants may run
	enforced uint64
	acks     []ack
	last     armor.Renewal
	seen     time.Duration // boot clock
	steady   time.Duration // boot instant since which it has said that it is leased and serves; zero: it does not
}

// ack is one report of enforcement.
type ack struct {
	revision uint64
	at       time.Duration // boot clock
	closed   int
}

// acksKept bounds the reports remembered per life: enough for every change whose
// caller is still waiting.
const acksKept = 128

// newLives begins with what earlier leaders may have granted: every member and every
// removed member is taken to have been granted the longest lease just now.
func (n *Node) newLives(began time.Duration) *lives {
	l := &lives{clock: n.cfg.Clock, mistakes: n.cfg.mistakes, nodes: map[armor.NodeID]*nodeLives{}, changed: make(chan struct{})}
	until := began + stretch(time.Duration(n.adapter.longest.Load()))
	state, _ := n.machine.Current()
	for m := range state.Members.Values() {
		l.nodes[m.ID] = &nodeLives{inherited: until, lives: map[uint64]*life{}}
	}
	if n.cfg.mistakes.forgetTombstones {
		return l
	}
	for t := range state.Tombstones.Values() {
		l.nodes[t.ID] = &nodeLives{inherited: until, lives: map[uint64]*life{}}
	}
	return l
}

// stretch allows for clocks that run at different rates.
func stretch(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)*armor.RateError)
}

func (l *lives) nodeLocked(node armor.NodeID) *nodeLives {
	a := l.nodes[node]
	if a == nil {
		a = &nodeLives{lives: map[uint64]*life{}}
		l.nodes[node] = a
	}
	return a
}

// report takes what a renewal says of its node.
func (l *lives) report(q armor.Renewal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	a := l.nodeLocked(q.Node)
	a.sweep(now, q)
	me := l.meet(a, q)
	if me.last.Ended && !l.mistakes.hearTheDead {
		return // a question that was under way when it said its last word
	}
	me.last, me.seen, a.latest = q, now, q.Epoch
	switch {
	case !q.Leased || !q.Serving && q.Level >= servingLevel:
		me.steady = 0
	case me.steady == 0:
		me.steady = now
	}
	if q.Ended {
		me.bound = now
	}
	if q.Enforced > me.enforced || q.Closed > 0 {
		me.enforced = max(me.enforced, q.Enforced)
		me.acks = append(me.acks, ack{me.enforced, now, q.Closed})
		if len(me.acks) > acksKept {
			me.acks = slices.Delete(me.acks, 0, len(me.acks)-acksKept)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// sweep forgets lives that are over, by proof or because nothing of theirs runs, and
// what was inherited once it has run out.
func (a *nodeLives) sweep(now time.Duration, q armor.Renewal) {
	if now >= a.inherited {
		a.inherited = 0
	}
	maps.DeleteFunc(a.lives, func(epoch uint64, l *life) bool {
		return epoch != q.Epoch && (epoch == q.Succeeds || now >= l.bound)
	})
}

// meet returns the asking life's record. What the node inherited becomes this life's
// own when it is known to be the only one that can hold it: it came to this leader with
// a running grant (no leader grants a second life while the first one's grant runs), or
// it has proved the former life over. A grant that it shows later says nothing: it may
// be this leader's.
func (l *lives) meet(a *nodeLives, q armor.Renewal) *life {
	me, known := a.lives[q.Epoch]
	if !known {
		me = &life{}
		a.lives[q.Epoch] = me
	}
	leased := q.Leased && (!known || l.mistakes.inheritLate)
	if a.inherited != 0 && (leased || q.Succeeds != 0) {
		me.bound = max(me.bound, a.inherited)
		a.inherited, a.heir = 0, q.Epoch
	}
	return me
}

// grant notes that a life is about to be granted length from now on, before anything
// is promised to it. read is called under the lock, so that whoever looks at the
// bounds after a commit either sees this one or knows that the grant demands the
// commit. A life must wait while another life of the same node may still serve, also
// one of which this leader knows no more than that it may be there.
func (l *lives) grant(node armor.NodeID, epoch uint64, read func() (length time.Duration)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	a := l.nodeLocked(node)
	if wait := a.othersServe(epoch) - now; wait > 0 {
		if a.isCopy(epoch, now) {
			return errCopy
		}
		return fmt.Errorf("%w: another life of node %q may still serve for %s", armor.ErrConflict, node, wait.Round(time.Millisecond))
	}
	me := a.lives[epoch]
	switch {
	case me == nil:
		return fmt.Errorf("%w: node %q has not reported", armor.ErrConflict, node)
	case me.last.Ended:
		return fmt.Errorf("%w: this life of node %q has said that it is over", armor.ErrConflict, node)
	}
	me.bound = max(me.bound, now+stretch(read()))
	return nil
}

// copyProof is how long another life goes on reporting after a new one began before the new
// one is a copy: no report is under way for that long.
const copyProof = 3 * time.Second

// errCopy is why a life is granted nothing while another of the same node serves and goes on
// doing so: its data directory is a copy.
var errCopy = errors.New("another process runs as this node")

// isCopy reports whether a life that has to wait is the copy of one that serves: of two, the one
// that holds a grant is the node. A life that has proved the other one over does not wait.
func (a *nodeLives) isCopy(epoch uint64, now time.Duration) bool {
	if a.waiting != epoch {
		a.waiting, a.since = epoch, now
	}
	for other, o := range a.lives {
		if other != epoch && now < o.bound && o.seen > a.since+copyProof {
			return true
		}
	}
	return false
}

// othersServe is the boot instant until which a life other than the given one may serve.
func (a *nodeLives) othersServe(epoch uint64) (until time.Duration) {
	until = a.inherited
	for other, o := range a.lives {
		if other != epoch {
			until = max(until, o.bound)
		}
	}
	return until
}

// lastReport returns the latest life's last renewal and how old it is; ok is false
// when the node has not reported in this tenure.
func (l *lives) lastReport(node armor.NodeID) (q armor.Renewal, age time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.nodes[node]
	if a == nil || a.lives[a.latest] == nil {
		return q, 0, false
	}
	me := a.lives[a.latest]
	return me.last, l.clock.Boot() - me.seen, true
}

// servingLevel is that of the first release whose nodes say whether they serve.
const servingLevel = 7

// steadyFor is for how long the node's latest life has held its lease and served.
func (l *lives) steadyFor(node armor.NodeID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.nodes[node]
	if a == nil || a.lives[a.latest] == nil || a.lives[a.latest].steady == 0 {
		return 0
	}
	return l.clock.Boot() - a.lives[a.latest].steady
}

// quiet reports whether no life of the node can still serve by any grant.
func (l *lives) quiet(node armor.NodeID) bool { return l.quietFor(node, 0) }

// quietFor reports whether that has been so for d.
func (l *lives) quietFor(node armor.NodeID, d time.Duration) bool {
	return l.clock.Boot() >= l.until(node)+d
}

// until is the boot instant until which some life of the node may serve.
func (l *lives) until(node armor.NodeID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.nodes[node]
	if a == nil {
		return 0
	}
	return a.othersServe(0)
}

// backends are what the nodes' latest lives have last said to have in PostgreSQL.
func (l *lives) backends() map[armor.NodeID][]armor.HostBackends {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[armor.NodeID][]armor.HostBackends{}
	for node, a := range l.nodes {
		if me := a.lives[a.latest]; me != nil {
			all[node] = me.last.Backends
		}
	}
	return all
}

// onlyLife reports whether the node's latest life is the only one that can still
// serve, so that what it reports of its server connections is all there is.
func (l *lives) onlyLife(node armor.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	a := l.nodes[node]
	return a != nil && now >= a.othersServe(a.latest)
}

// letGo reports whether the node's only life has ended and held no server connection then.
func (l *lives) letGo(node armor.NodeID) bool {
	q, _, ok := l.lastReport(node)
	return ok && q.Ended && len(q.Held) == 0 && l.onlyLife(node)
}

// watch returns a channel that is closed with the next report.
func (l *lives) watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// fences are the bounds of a node's lives at one moment.
type fences struct {
	node  armor.NodeID
	until map[uint64]time.Duration // by epoch; epoch 0 is a life that was never met
}

func (l *lives) fencesOf(nodes []armor.NodeID) []fences {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]fences, 0, len(nodes))
	for _, node := range nodes {
		f := fences{node: node, until: map[uint64]time.Duration{}}
		if a := l.nodes[node]; a != nil {
			if a.inherited != 0 {
				f.until[0] = a.inherited
			}
			for epoch, o := range a.lives {
				f.until[epoch] = o.bound
			}
		}
		all = append(all, f)
	}
	return all
}

// standing is how far a node has come with one revision.
type standing struct {
	confirmed bool          // every life has enforced it
	fenced    bool          // those that have not cannot serve any more
	until     time.Duration // when fenced will be true
	ack       ack           // the latest life's
}

// stand looks at the lives that f names. A life that has been proved over, or that was
// swept after its bound, is done; one that began later was granted nothing that does
// not demand the revision.
func (l *lives) stand(f fences, revision uint64) standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Boot()
	s := standing{confirmed: true, fenced: true}
	a := l.nodes[f.node]
	for epoch, until := range f.until {
		if a.done(epoch, revision) {
			continue
		}
		s.confirmed = false
		s.until = max(s.until, until)
		s.fenced = s.fenced && now >= until
	}
	met := a != nil && a.lives[a.latest] != nil
	if met {
		s.ack, met = a.lives[a.latest].ackOf(revision)
	}
	s.confirmed = s.confirmed && met
	return s
}

func (a *nodeLives) done(epoch, revision uint64) bool {
	if epoch == 0 {
		if a.inherited != 0 {
			return false
		}
		epoch = a.heir
	}
	me := a.lives[epoch]
	return me == nil || me.last.Ended || me.enforced >= revision
}

// ackOf is the first report that covers a revision.
func (l *life) ackOf(revision uint64) (ack, bool) {
	for _, k := range l.acks {
		if k.revision >= revision {
			return k, true
		}
	}
	return ack{}, false
}
