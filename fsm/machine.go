package fsm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
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
func (m *Machine) Apply(index, term uint64, b []byte) (armor.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.current.Load()
	if last := v.world.state.Revision; index <= last {
		return armor.Result{}, fmt.Errorf("%w: entry %d comes after %d", ErrCannotApply, index, last)
	}
	e, err := decode(b)
	if err != nil {
		return armor.Result{}, fmt.Errorf("entry %d of term %d: %w: %w", index, term, ErrCannotApply, err)
	}
	next, result := v.world.step(index, term, e)
	m.publish(v, &version{world: next, chain: link(v.chain, index, term, b)})
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
// applied already gives its first outcome. What only takes access away is proposed as an
// entry that time does not judge, if time is in its way. The entry of a dry run would be
// refused: it is signed for another purpose. Check may run beside Apply.
func (m *Machine) Check(r armor.Request, now time.Time) (b []byte, err error) {
	if !wire.IsCommand(r.Command) {
		return nil, refuse(armor.ErrInvalid, "%T is no command of the log", r.Command)
	}
	e := entry{r, now, kinds[r.Command.Kind()].level}
	b, err = m.try(e)
	if err == nil || !TakesAway(r.Command) {
		return b, err
	}
	e.level = timelessLevel
	if timeless, never := m.try(e); never == nil {
		return timeless, nil
	}
	return nil, err
}

// try returns an entry as bytes if the state in force accepts it.
func (m *Machine) try(e entry) ([]byte, error) {
	dryRun := e.request.DryRun
	e.request.DryRun = false
	b, e, err := encode(e)
	if err != nil {
		return nil, err
	}
	e.request.DryRun = dryRun
	w := m.current.Load().world
	if _, result := w.step(w.state.Revision+1, 0, e); result.Err != nil {
		return nil, result.Err
	}
	return b, nil
}
