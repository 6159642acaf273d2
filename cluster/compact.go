package cluster

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// A node that starts replays what came after its newest snapshot, some 1 ms of a processor
// an entry; a snapshot costs some 5 µs a row. So a small state is written often, and a large one
// when as much has come together as a snapshot costs.
const (
	leastReplayed = 512 // entries
	rowsAnEntry   = 128 // rows that cost as much to write as an entry to replay
	// lastSnapshot is how long the snapshot at an orderly end may take.
	lastSnapshot = 10 * time.Second
)

// replayed is after how many entries a snapshot of a state is due: no more than most.
func replayed(s *armor.State, most uint64) uint64 {
	rows := 0
	for _, t := range armor.Tables() {
		rows += t.Len(s)
	}
	return min(max(leastReplayed, uint64(rows)/rowsAnEntry), most)
}

// paceSnapshots tells Raft after how many entries it shall write the next snapshot.
func (n *Node) paceSnapshots(r *raft.Raft, s *armor.State) {
	now, due := r.ReloadableConfig(), replayed(s, n.cfg.Timings.SnapshotThreshold)
	if n.cfg.mistakes.replayAll || due < 2*now.SnapshotThreshold && now.SnapshotThreshold < 2*due {
		return
	}
	now.SnapshotThreshold = due
	if err := r.ReloadConfig(now); err != nil {
		n.cfg.Logger.Warn("the pace of snapshots could not be set", armor.KeyErr, err)
	}
}

// snapshotAtEnd writes a snapshot, so that the next life has nothing to replay. One that
// takes too long is left: the log has all that it would say.
func (n *Node) snapshotAtEnd(r *raft.Raft) {
	if n.failed.cause() != nil || n.cfg.mistakes.replayAll || n.machine.LastCommand() == n.adapter.snapshotAt.Load() {
		return
	}
	future := r.Snapshot()
	done := make(chan error, 1)
	if !n.tasks.start(func() { done <- future.Error() }) {
		return
	}
	timer := time.NewTimer(lastSnapshot)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			n.cfg.Logger.Debug("no snapshot at the end", armor.KeyErr, err)
		}
	case <-timer.C:
	}
}
