package cluster

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// maxIncoming bounds a snapshot that another node sends.
const maxIncoming = 8 << 30

// errUnproven is why a snapshot was not taken: too few voters have told that they know its
// state. Its text crosses the wire, and the sender looks for it.
var errUnproven = errors.New("unproven snapshot")

// errUnread says that a snapshot was not read to its end.
var errUnread = errors.New("receive a snapshot")

// refreshAfter is how long a leader leaves between snapshots that are made only because
// another one is unproven.
const refreshAfter = 5 * time.Second

// examine reads a whole snapshot that a node sends before Raft sees any of it, and returns
// it when it is of our cluster, not older than what we have, and of a state that a majority
// of the voters has had, too. A snapshot replaces everything at once and carries no proof of
// its own; nothing of one that is refused reaches the disk or the state.
func (n *Node) examine(peer armor.NodeID, m *raft.InstallSnapshotRequest, body io.Reader) (io.Reader, error) {
	copied, err := n.spool(body, m.Size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	if n.cfg.mistakes.takeSnapshots {
		return &untilEnd{copied}, nil
	}
	named, err := decodeServers(m.Configuration)
	var mark armor.Mark
	if err == nil {
		mark, err = n.judgeSnapshot(copied, m.LastLogIndex)
	}
	if err == nil {
		err = n.proven(peer, mark, named)
	}
	if err == nil {
		_, err = copied.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, copied.Close())
	}
	return &untilEnd{copied}, nil
}

// untilEnd closes what it reads at its end, to which Raft always reads.
type untilEnd struct{ from spooled }

// Read reads on.
func (u *untilEnd) Read(b []byte) (int, error) {
	n, err := u.from.Read(b)
	if err != nil {
		u.from.Close() // it was only read
	}
	return n, err
}

// decodeServers decodes a configuration of Raft's, which panics over what it cannot read.
func decodeServers(b []byte) (c raft.Configuration, err error) {
	err = guarded(func() error {
		c = raft.DecodeConfiguration(b)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w: a raft configuration that cannot be read", armor.ErrInvalid)
	}
	return c, err
}

// judgeSnapshot says where a snapshot stands, or why it cannot be ours.
func (n *Node) judgeSnapshot(body io.Reader, last uint64) (armor.Mark, error) {
	buffered := bufio.NewReaderSize(body, 64<<10)
	if _, err := readSnapshotHeader(buffered); err != nil {
		return armor.Mark{}, err
	}
	mark, of, err := fsm.Examine(buffered)
	if err != nil {
		return mark, err
	}
	state, _ := n.machine.Current()
	switch own := cmp.Or(state.Cluster.ID, n.cfg.Cluster); {
	case own != "" && own != of.ID:
		return mark, fmt.Errorf("%w: the snapshot is of cluster %.80q, and this node is of %s", armor.ErrDenied, of.ID, own)
	case state.Cluster.ID != "" && state.Cluster.Era != of.Era:
		return mark, fmt.Errorf("%w: the snapshot is of era %s of the cluster, and this node of era %s: to go from one to the other it joins anew",
			armor.ErrDenied, of.Era, state.Cluster.Era)
	case mark.Revision > last:
		return mark, fmt.Errorf("%w: the snapshot holds revision %d, and says that it ends at log entry %d",
			armor.ErrInvalid, mark.Revision, last)
	case mark.Revision < state.Revision:
		return mark, fmt.Errorf("%w: the snapshot is of revision %d, and this node has %d", armor.ErrConflict, mark.Revision, state.Revision)
	}
	if ours, known := n.machine.MarkAt(mark.Revision); known && ours != mark {
		return mark, fmt.Errorf("%w: at revision %d the snapshot has %s, and this node %s",
			armor.ErrConflict, mark.Revision, describe(mark), describe(ours))
	}
	return mark, nil
}

// proven asks the voters whether they have had a snapshot's state. The voters are those
// that this node knows of; one that has joined and knows none takes those that the snapshot
// was sent with, of which it was told some when it joined.
func (n *Node) proven(peer armor.NodeID, mark armor.Mark, named raft.Configuration) error {
	voters := votersAmong(servers(n.raft.Load()))
	if len(voters) == 0 {
		voters = votersAmong(named.Servers)
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timings.RenewTimeout) // Raft's messages have no ctx
	defer cancel()
	yes, no := 0, 0
	for _, a := range n.askVoters(ctx, voters, mark.Revision) {
		switch {
		case a.Mark == mark:
			yes++
		case !a.Mark.IsZero():
			no++
		}
	}
	if 2*no > len(voters) {
		n.divergence.count.Add(1)
	}
	if need := witnesses(voters, n.cfg.Node); need == 0 || yes < need {
		return fmt.Errorf("%w of node %s: at revision %d it has %s: %d of %d voters have the same there, %d another; %d must have the same",
			errUnproven, peer, mark.Revision, describe(mark), yes, len(voters), no, need)
	}
	return nil
}

// witnesses is how many voters other than the node itself must say the same: a majority of
// all, or all others if they are fewer.
func witnesses(voters []armor.NodeID, self armor.NodeID) int {
	others := len(voters)
	if slices.Contains(voters, self) {
		others--
	}
	return min(len(voters)/2+1, others)
}

// spooled is a snapshot that has come. It is kept in a file that has no name, or in memory where the log is.
type spooled interface {
	io.ReadSeeker
	io.Closer
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

func (n *Node) spool(body io.Reader, size int64) (spooled, error) {
	if size < 0 || size > maxIncoming {
		return nil, fmt.Errorf("%w: of %d bytes", armor.ErrInvalid, size)
	}
	if n.dir == nil {
		var b bytes.Buffer
		_, err := io.CopyN(&b, body, size)
		return inMemory{bytes.NewReader(b.Bytes())}, err
	}
	f, err := os.CreateTemp(n.dir.path, "incoming-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.CopyN(f, body, size)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// snapshotSoon makes a new snapshot, because voters that were started or caught up since do
// not know the revision of the last one. Of the present one all of them know.
func (n *Node) snapshotSoon() {
	now, last := int64(n.cfg.Clock.Boot()), n.refreshed.Load()
	if last != 0 && now-last < int64(refreshAfter) || !n.refreshed.CompareAndSwap(last, now) {
		return
	}
	n.tasks.start(func() {
		if err := n.raft.Load().Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			n.cfg.Logger.Warn("cannot make a snapshot that others can prove", armor.KeyErr, err)
		}
	})
}
