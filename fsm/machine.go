package fsm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
)

// Machine is the replicated state machine. Its published state may be read from any
// goroutine at any time; whoever feeds it calls Apply and Restore.
type Machine struct {
	current atomic.Pointer[version]
	trail   trail

	mu sync.Mutex // serialises Apply and Restore; readers never take it
}

// version is one published world. It is immutable but for superseded, which is closed
// once the next version can be loaded.
type version struct {
	world      *world
	chain      armor.Digest
	digest     armor.Digest // of the world
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

// Mark returns where the state in force stands: equal revisions must have equal marks on
// all nodes.
func (m *Machine) Mark() armor.Mark { return m.current.Load().mark() }

// MarkAt returns where a revision stood, if it was applied here and is one of the latest.
func (m *Machine) MarkAt(revision uint64) (armor.Mark, bool) { return m.trail.at(revision) }

func (v *version) mark() armor.Mark {
	if v.world.state.Revision == 0 {
		return armor.Mark{}
	}
	return armor.Mark{Revision: v.world.state.Revision, Chain: v.chain, State: v.digest}
}

// Apply takes the committed entry at index and publishes the state that follows. The
// Result is the cluster's answer, refusals included. The error is non-nil only when
// this build cannot apply the entry (it wraps ErrCannotApply): nothing was changed,
// and the caller must stop the node.
func (m *Machine) Apply(index, term uint64, entry []byte) (armor.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.current.Load()
	if last := v.world.state.Revision; index <= last {
		return armor.Result{}, fmt.Errorf("%w: entry %d comes after %d", ErrCannotApply, index, last)
	}
	r, proposedAt, err := Decode(entry)
	if err != nil {
		return armor.Result{}, fmt.Errorf("entry %d of term %d: %w", index, term, err)
	}
	next, result := v.world.step(index, term, proposedAt, r)
	m.publish(v, &version{world: next, chain: link(v.chain, index, term, entry)})
	return result, nil
}

// publish makes next the version in force. The order matters: whoever wakes from
// superseded must find the new state.
func (m *Machine) publish(old, next *version) {
	next.superseded = make(chan struct{})
	next.digest = next.world.hash()
	m.trail.add(next.mark())
	m.current.Store(next)
	close(old.superseded)
}

// Check answers whether Apply would accept r now, by running it on the state in force
// without publishing anything, and returns the entry to propose then. A request that was
// applied already gives its first outcome. Check may run beside Apply.
func (m *Machine) Check(r armor.Request, now time.Time) (entry []byte, err error) {
	entry, r, proposedAt, err := encode(r, now)
	if err != nil {
		return nil, err
	}
	w := m.current.Load().world
	if _, result := w.step(w.state.Revision+1, 0, proposedAt, r); result.Err != nil {
		return nil, result.Err
	}
	return entry, nil
}
