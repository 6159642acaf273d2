package fsm

import (
	"fmt"
	"slices"
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

	trustAhead bool // a mutant of our tests does not look whether the key is still the operator's
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

// Level is the latest level of an entry that was applied: no node goes on without it.
func (m *Machine) Level() uint32 { return m.current.Load().world.level }

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
		if len(results) > 0 { // the last one's mark comes with its publication
			m.note(next)
		}
		var result armor.Result
		p.entry.trustAhead = m.trustAhead
		next.world, result = next.world.step(p.Index, p.Term, p.entry)
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
	entry entry
	err   error
}

// prepare reads an entry, and verifies its signature by the key that its operator has in w.
func (w *world) prepare(e Entry) prepared {
	read, err := decode(e.Data)
	if err != nil {
		return prepared{e, read, fmt.Errorf("%w: %w", ErrCannotApply, err)}
	}
	if operator, found := w.state.Operators.Get(read.request.Principal); found {
		read.ahead = &verified{
			key: operator.PublicKey, cluster: w.state.Cluster.ID, err: read.request.Verify(w.state.Cluster.ID, operator.PublicKey),
		}
	}
	return prepared{e, read, nil}
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
	m.note(next)
	m.current.Store(next)
	close(old.superseded)
}

// note computes the digest of a version and remembers where it stands.
func (m *Machine) note(v *version) {
	v.digest = v.world.hash()
	m.trail.add(v.mark())
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
	e := entry{request: r, proposedAt: now, level: kinds[r.Command.Kind()].level}
	b, err = m.try(e)
	latter := latterLevel(r.Command)
	if err == nil || e.level >= latter {
		return b, err
	}
	e.level = latter
	if b, never := m.try(e); never == nil {
		return b, nil
	}
	return nil, err
}

// latterLevel is what commands of an earlier level are tried as when they are refused at
// their own, if they mean more there: members of an older release go on without them. Zero: they
// mean the same at every level.
func latterLevel(c armor.Command) uint32 {
	switch c.(type) {
	case armor.RenewMember: // with a certificate of another peer CA
		return 8
	case armor.CreateJoinToken, armor.RequestJoin: // for a name whose former node is not over yet
		return 7
	case armor.PutAnchor: // of an intermediate
		return 7
	}
	if TakesAway(c) { // whatever the time
		return 7
	}
	return 0
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
