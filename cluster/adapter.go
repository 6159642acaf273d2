package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// entryID names a log entry.
type entryID struct{ index, term uint64 }

// adapter feeds the machine from Raft's log. It implements raft.FSM.
type adapter struct {
	machine  *fsm.Machine
	clock    Clock
	failed   *failure
	journal  *journal
	mistakes *mistakes

	// snapshotAt is the revision of the newest snapshot.
	snapshotAt atomic.Uint64
	// committed is the highest entry this node knows to be committed.
	committed atomic.Pointer[entryID]
	// longest is the longest freshness bound that any state in this log ever had: a
	// lease granted under it may outlive the state.
	longest atomic.Int64
	// applied holds when the latest revisions were published, on the boot clock.
	applied [256]atomic.Pointer[publication]
}

type publication struct {
	revision uint64
	at       time.Duration
	wall     time.Time
}

// outcome is what Apply returns through Raft's future.
type outcome struct {
	result armor.Result
	err    error // this node could not apply the entry
}

func newAdapter(cfg Config, failed *failure) *adapter {
	a := &adapter{machine: cfg.Machine, clock: cfg.Clock, failed: failed, journal: newJournal(cfg.Logger), mistakes: cfg.mistakes}
	a.committed.Store(&entryID{})
	a.longest.Store(int64(armor.DefaultFreshLive))
	return a
}

// Apply publishes the state after the entry. An entry that this build cannot apply
// ends the node: skipping it would make this node a different cluster.
func (a *adapter) Apply(entry *raft.Log) any { return a.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch is Apply for entries that are committed together, as they are when a node
// replays its log or catches up. It implements raft.BatchingFSM.
func (a *adapter) ApplyBatch(entries []*raft.Log) []any {
	outcomes := make([]any, len(entries))
	var commands []fsm.Entry
	for _, e := range entries {
		a.checkSeal(e)
		if e.Type == raft.LogCommand { // Raft keeps its own configuration
			commands = append(commands, fsm.Entry{Index: e.Index, Term: e.Term, Data: e.Data})
		}
	}
	if len(commands) == 0 {
		return outcomes
	}
	var results []armor.Result
	err := a.failed.cause()
	if err == nil {
		if results, err = a.machine.ApplyAll(commands); err != nil {
			err = fmt.Errorf("apply log entry: %w", err)
			a.failed.fail(err)
		}
	}
	for i, e := range entries {
		switch {
		case e.Type != raft.LogCommand:
		case len(results) == 0:
			outcomes[i] = outcome{err: err}
		default:
			a.note(e, results[0])
			outcomes[i], results = outcome{result: results[0]}, results[1:]
		}
	}
	a.observe()
	return outcomes
}

// checkSeal ends the node at an entry that is not what was stored: nothing of what came with
// it is applied.
func (a *adapter) checkSeal(entry *raft.Log) {
	if err := checkSeal(entry); err != nil && !a.mistakes.trustDisk {
		a.failed.fail(fmt.Errorf("apply log entry %d: %w", entry.Index, damaged("memory", err.Error())))
	}
}

// note remembers an entry that was applied and published.
func (a *adapter) note(entry *raft.Log, result armor.Result) {
	a.applied[entry.Index%uint64(len(a.applied))].Store(&publication{entry.Index, a.clock.Boot(), a.clock.Wall()})
	a.commits(entryID{entry.Index, entry.Term})
	if !a.mistakes.keepMum {
		a.journal.note(entry, result)
	}
}

// commits notes that an entry is committed.
func (a *adapter) commits(e entryID) {
	for {
		old := a.committed.Load()
		if e.index <= old.index || a.committed.CompareAndSwap(old, &e) {
			return
		}
	}
}

// observe keeps longest up to date.
func (a *adapter) observe() {
	state, _ := a.machine.Current()
	a.remember(longestLive(state))
}

func (a *adapter) remember(d time.Duration) {
	for {
		old := a.longest.Load()
		if int64(d) <= old || a.longest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// publishedAt returns when this node published a revision, if it is recent.
func (a *adapter) publishedAt(revision uint64) (publication, bool) {
	p := a.applied[revision%uint64(len(a.applied))].Load()
	if p == nil || p.revision != revision {
		return publication{}, false
	}
	return *p, true
}

// longestLive is the longest that a node may serve on one proof of freshness.
func longestLive(s *armor.State) time.Duration {
	longest := time.Duration(0)
	for e := range s.Environments.Values() {
		fresh, live := bounds(e)
		longest = max(longest, fresh, live)
	}
	if longest == 0 {
		longest = armor.DefaultFreshLive
	}
	return longest
}

// bounds are an environment's T_new and T_live.
func bounds(e armor.Environment) (fresh, live time.Duration) {
	fresh, live = e.FreshNew, e.FreshLive
	if fresh <= 0 {
		fresh = armor.DefaultFreshNew
	}
	if live <= 0 {
		live = armor.DefaultFreshLive
	}
	return fresh, live
}

// A snapshot is the machine's, after a header of ours: what the machine's state does
// not say and a new leader must know.
var snapshotMagic = [8]byte{'A', 'R', 'M', 'O', 'R', 'C', 'L', '1'}

const maxLongest = 24 * time.Hour

type snapshotHeader struct {
	Magic   [8]byte
	Longest int64 // nanoseconds
}

// Snapshot captures the state in force.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) {
	if err := a.failed.cause(); err != nil {
		return nil, err
	}
	a.snapshotAt.Store(a.machine.LastCommand())
	return &snapshot{machine: a.machine.Snapshot(), header: snapshotHeader{snapshotMagic, a.longest.Load()}}, nil
}

type snapshot struct {
	machine fsm.Snapshot
	header  snapshotHeader
}

// Persist writes the snapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	err := s.writeTo(sink)
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) writeTo(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	if err := binary.Write(buffered, binary.BigEndian, s.header); err != nil {
		return err
	}
	if _, err := s.machine.WriteTo(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

func (s *snapshot) Release() {}

// Restore publishes a snapshot's state; followers of the state re-decide every live
// session exactly as after an entry.
func (a *adapter) Restore(r io.ReadCloser) error {
	defer r.Close()
	buffered := bufio.NewReaderSize(r, 64<<10)
	header, err := readSnapshotHeader(buffered)
	if err != nil {
		return err
	}
	if err := a.machine.Restore(buffered); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	a.snapshotAt.Store(a.machine.LastCommand())
	a.remember(time.Duration(header.Longest))
	a.observe()
	return nil
}

func readSnapshotHeader(r io.Reader) (snapshotHeader, error) {
	var h snapshotHeader
	if err := binary.Read(r, binary.BigEndian, &h); err != nil {
		return h, fmt.Errorf("read snapshot header: %w", err)
	}
	if h.Magic != snapshotMagic {
		return h, fmt.Errorf("%w: the snapshot is of another program or version", armor.ErrInvalid)
	}
	if h.Longest < 0 || h.Longest > int64(maxLongest) {
		return h, fmt.Errorf("%w: the snapshot names a freshness bound of %s", armor.ErrInvalid, time.Duration(h.Longest))
	}
	return h, nil
}
