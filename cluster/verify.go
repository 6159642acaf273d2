package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// maxProblems bounds what one verification tells: the first say enough.
const maxProblems = 20

// Verify recomputes what this node keeps of the cluster: the state from its rows, the
// history from the log as far as both are kept, the checksum of each log entry, and each snapshot.
// It reads all of it, and changes nothing. ErrUnavailable while another verification runs
// here, or the node does not.
func (n *Node) Verify(ctx context.Context, revision uint64) (armor.Verification, error) {
	v := armor.Verification{Node: n.cfg.Node}
	if n.raft.Load() == nil || n.failed.cause() != nil {
		return v, fmt.Errorf("verify: %w", armor.ErrUnavailable)
	}
	if !n.verifying.CompareAndSwap(false, true) {
		return v, fmt.Errorf("%w: node %s is being verified already", armor.ErrUnavailable, n.cfg.Node)
	}
	defer n.verifying.Store(false)
	v.Mark = n.markSoon(ctx, revision)
	w := &verifier{node: n, found: &v}
	w.note("state", n.machine.Verify())
	w.log(ctx)
	w.snapshots()
	return v, ctx.Err()
}

// markSoon waits until a revision is applied, as far as ctx lasts.
func (n *Node) markSoon(ctx context.Context, revision uint64) armor.Mark {
	for {
		state, superseded := n.machine.Current()
		if state.Revision >= revision {
			mark, _ := n.machine.MarkAt(revision)
			return mark
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return armor.Mark{}
		}
	}
}

// verifier is one verification in progress.
type verifier struct {
	node  *Node
	found *armor.Verification
	last  armor.Mark // of the command before, where it is known
}

func (w *verifier) note(what string, err error) {
	if err != nil && len(w.found.Problems) < maxProblems {
		w.found.Problems = append(w.found.Problems, fmt.Sprintf("%s: %v", what, err))
	}
}

// log reads the log up to what is applied.
func (w *verifier) log(ctx context.Context) {
	store := w.node.latch.log
	first, err := store.FirstIndex()
	if err != nil {
		w.note("log", err)
		return
	}
	for index := max(first, 1); index <= w.node.machine.LastCommand() && ctx.Err() == nil; index++ {
		var entry raft.Log
		err := guarded(func() error { return store.GetLog(index, &entry) })
		if errors.Is(err, raft.ErrLogNotFound) {
			w.last = armor.Mark{} // a snapshot was made meanwhile, and the log cut
			continue
		}
		if err == nil {
			err = checkSeal(&entry)
		}
		if err == nil {
			err = w.follows(&entry)
		}
		w.found.Entries++
		w.note(fmt.Sprintf("log entry %d", index), err)
	}
}

// follows holds an entry against the history that was kept with each change.
func (w *verifier) follows(entry *raft.Log) error {
	if entry.Type != raft.LogCommand {
		return nil
	}
	before := w.last
	after, known := w.node.machine.MarkAt(entry.Index)
	w.last = after
	if known && !before.IsZero() && !fsm.Follows(before, after, entry.Term, entry.Data) {
		return fmt.Errorf("it does not lead from the history of revision %d to that of %d", before.Revision, after.Revision)
	}
	return nil
}

// snapshots reads each snapshot to its end.
func (w *verifier) snapshots() {
	store := w.node.latch.snapshots
	all, err := store.List()
	w.note("snapshots", err)
	for _, meta := range all {
		w.found.Snapshots++
		w.note("snapshot "+meta.ID, w.snapshot(store, meta))
	}
}

func (w *verifier) snapshot(store raft.SnapshotStore, meta *raft.SnapshotMeta) error {
	_, body, err := store.Open(meta.ID)
	if err != nil {
		return err
	}
	defer body.Close() // it is only read
	buffered := bufio.NewReaderSize(body, 64<<10)
	if _, err := readSnapshotHeader(buffered); err != nil {
		return err
	}
	mark, of, err := fsm.Examine(buffered)
	if err != nil {
		return err
	}
	state, _ := w.node.machine.Current()
	if of.ID != state.Cluster.ID {
		return fmt.Errorf("it is of cluster %.80q", of.ID)
	}
	if ours, known := w.node.machine.MarkAt(mark.Revision); known && ours != mark {
		return fmt.Errorf("it has %s at revision %d, and this node %s", describe(mark), mark.Revision, describe(ours))
	}
	return nil
}
