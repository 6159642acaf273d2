package fsm

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Machine is the replicated state machine. Its published state may be read from any
// goroutine at any time; whoever feeds it calls Apply and Restore.
type Machine struct {
	current atomic.Pointer[version]

	mu sync.Mutex // serialises Apply and Restore; readers never take it

	trustAhead bool // a mutant of our tests does not look whether the key is still the operator's
}

// version is one published world. It is immutable but for superseded, which is closed
// once the next version can be loaded.
type version struct {
	world      *world
	chain      armor.Digest
	superseded chan struct{}
}

// New returns a machine that has applied nothing: its state is revision 0.
func New() *Machine {
	m := &Machine{}
	m.current.Store(&version{world: emptyWorld(), superseded: make(chan struct{})})
	return m
}

func emptyWorld() *world { return &world{state: &armor.State{}} }

// Current returns the state in force and a channel that is closed as soon as a newer
// one is (armor.Trust). It never blocks.
func (m *Machine) Current() (*armor.State, <-chan struct{}) {
	v := m.current.Load()
	return v.world.state, v.superseded
}

// LastCommand returns the index of the last entry whose outcome is published; zero
// before the first. Whoever reads it and then Current gets at least that state.
func (m *Machine) LastCommand() uint64 { return m.current.Load().world.state.Revision }

// Hash returns the last revision, the digest of the history that led to it and the
// digest of the state it holds. Equal revisions must have equal digests on all nodes.
func (m *Machine) Hash() (revision uint64, chain, state armor.Digest) {
	v := m.current.Load()
	return v.world.state.Revision, v.chain, v.world.hash()
}

// Entry is one committed entry of the log.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Apply takes the committed entry at index and publishes the state that follows. The
// Result is the cluster's answer, refusals included. The error is non-nil only when
// this build cannot apply the entry (it wraps ErrCannotApply): nothing was changed,
// and the caller must stop the node.
func (m *Machine) Apply(index, term uint64, data []byte) (armor.Result, error) {
	results, err := m.ApplyAll([]Entry{{index, term, data}})
	if err != nil {
		return armor.Result{}, err
	}
	return results[0], nil
}

// ApplyAll is Apply for entries that follow each other, and publishes once: those who follow
// the state look at it once, and what an entry costs that does not depend on those before
// it is done on all processors. The results are those of the entries before the first that
// this build cannot apply, which the error is about; they are published.
func (m *Machine) ApplyAll(entries []Entry) (results []armor.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.current.Load()
	next := &version{world: v.world, chain: v.chain}
	take := func(p prepared) error {
		if last := next.world.state.Revision; p.Index <= last {
			return fmt.Errorf("%w: entry %d comes after %d", ErrCannotApply, p.Index, last)
		}
		if p.err != nil {
			return fmt.Errorf("entry %d of term %d: %w", p.Index, p.Term, p.err)
		}
		var result armor.Result
		p.proposal.trustAhead = m.trustAhead
		next.world, result = next.world.step(p.Index, p.Term, p.proposal)
		next.chain = link(next.chain, p.Index, p.Term, p.Data)
		results = append(results, result)
		return nil
	}
	if len(entries) == 1 { // as a rule: somebody waits for it
		err = take(v.world.prepare(entries[0]))
	} else {
		err = inParts(slices.Values(entries), v.world.prepare, take)
	}
	if len(results) > 0 {
		m.publish(v, next)
	}
	return results, err
}

// prepared is an entry with all of its work done that does not depend on those before it.
type prepared struct {
	Entry
	proposal proposal
	err      error
}

// prepare reads an entry, and verifies its signature by the key that its operator has in w.
func (w *world) prepare(e Entry) prepared {
	p, err := read(e.Data)
	if err == nil {
		if operator, found := w.state.Operators.Get(p.Principal); found {
			p.ahead = &verified{key: operator.PublicKey, cluster: w.state.Cluster.ID, err: p.Verify(w.state.Cluster.ID, operator.PublicKey)}
		}
	}
	return prepared{e, p, err}
}

// verified is what became of verifying a request's signature before it is its turn.
type verified struct {
	key     []byte
	cluster string
	err     error
}

// publish makes next the version in force. The order matters: whoever wakes from
// superseded must find the new state.
func (m *Machine) publish(old, next *version) {
	next.superseded = make(chan struct{})
	m.current.Store(next)
	close(old.superseded)
}

// Check answers whether Apply would accept r now, by running it on the state in force
// without publishing anything, and returns the entry to propose then. A request that was
// applied already gives its first outcome. A dry run is judged in the same way, and has no
// entry. Check may run beside Apply.
func (m *Machine) Check(r armor.Request, now time.Time) (entry []byte, err error) {
	dryRun := r.DryRun
	r.DryRun = false
	entry, p, err := encode(r, now)
	if err != nil {
		return nil, err
	}
	if dryRun {
		entry, p.DryRun = nil, true
	}
	w := m.current.Load().world
	if _, result := w.step(w.state.Revision+1, 0, p); result.Err != nil {
		return nil, result.Err
	}
	return entry, nil
}
