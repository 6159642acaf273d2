package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// A cluster that has lost its quorum for good goes on from what one node's disk has:
//
//	lock ──▶ read all of it, and compute ──▶ show ──▶ make another Raft folder ──▶ put it in place
//	         the new era's first state                beside the old one          by two renames
//
// These are the steps of raft.RecoverCluster: replay, a snapshot with another configuration, no
// log. That one writes where it reads, and can be interrupted between the two: entries of the
// old era would then be sent to those who join. Here nothing is written to the old folder.

// eraTerms is by how much a new era's term is later than any that its node has seen. Others
// may have elected without it; no entry of the new era may have index and term of one that
// they have.
const eraTerms = 1 << 10

// RecoverConfig says which node's disk is to go on as a cluster of one.
type RecoverConfig struct {
	DataDir string
	Cluster string // id; empty: whichever the directory is of
	// Member is the node as it will be. Of its own certificate and the state's it keeps the one
	// that lasts longer.
	Member armor.Member
	EraID  string
	Now    time.Time
	// MendTime takes log time, which is in the future, back to Now.
	MendTime bool
	Logger   *slog.Logger
}

// Recovery is a node's disk that was read to go on alone, and not changed. It holds the lock of
// the data directory until Close.
type Recovery struct {
	Before *armor.State // what the disk leads to
	After  *armor.State // the first state of the new era
	// Index and Term are those of the last entry: of two disks of one cluster, the one with
	// the later term has more, and of equal terms the one with the later index.
	Index, Term uint64
	// Committed is the last entry that is known to be committed, and Unsure are the commands after it.
	Committed uint64
	Unsure    []Unsure

	cfg     RecoverConfig
	lock    *os.File
	next    snapshot
	nextEnd entryID // where the new era begins
}

// Unsure is a command in the log of which this node does not know that a majority had it. It
// goes on all the same: some client may have been told that it was done.
type Unsure struct {
	Index   uint64
	Request armor.Request
}

// OpenRecovery reads a stopped node's disk: its newest snapshot and all of its log. It fails
// while the node runs, and where a start would find the disk damaged.
func OpenRecovery(cfg RecoverConfig) (*Recovery, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	life, err := formerLife(cfg)
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(cfg.DataDir, "lock"))
	if err != nil {
		return nil, err
	}
	r := &Recovery{cfg: cfg, lock: lock}
	if err := r.read(life); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return r, nil
}

// formerLife reads what the node's last life has left of itself, and changes nothing.
func formerLife(cfg RecoverConfig) (*lifeRecord, error) {
	info, err := os.Stat(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("look at the data directory: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%w: data directory %s is user %d's, and this is user %d: run it as that one",
			armor.ErrDenied, cfg.DataDir, stat.Uid, os.Geteuid())
	}
	d := dataDir{path: cfg.DataDir}
	life, err := d.read()
	if err != nil {
		return nil, err
	}
	if life == nil || life.Cluster == "" {
		return nil, fmt.Errorf("%w: no member of a cluster has lived in %s", armor.ErrNotFound, cfg.DataDir)
	}
	return life, life.mayBecome(cfg.DataDir, cfg.Member.ID, cfg.Cluster)
}

func (r *Recovery) read(life *lifeRecord) error {
	if err := finishRecovery(r.cfg.DataDir); err != nil {
		return err
	}
	folder := filepath.Join(r.cfg.DataDir, raftFolder)
	if _, err := os.Stat(filepath.Join(folder, logName)); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrForgot, err, seeDamaged)
	}
	s, err := openRaft(folder, readLog, r.cfg.Logger)
	if err != nil {
		return err
	}
	adapter, err := r.replay(s)
	err = errors.Join(err, s.close())
	if err == nil {
		r.Before, _ = adapter.machine.Current()
		err = life.mayHold(r.Before.Cluster, r.cfg.DataDir)
	}
	if err != nil {
		return err
	}
	return r.compute(adapter)
}

// replay has a machine apply all that a node's disk holds.
func (r *Recovery) replay(s *stores) (*adapter, error) {
	failed := newFailure()
	a := newAdapter(Config{Machine: fsm.New(), Clock: bootClock{}, Logger: r.cfg.Logger, mistakes: &mistakes{keepMum: true}}, failed)
	last, err := restoreNewest(s, a)
	if err != nil {
		return nil, err
	}
	r.Index, r.Term, r.Committed = last.index, last.term, last.index
	var end, term, noted uint64
	err = guarded(func() (err error) {
		end, err = s.log.LastIndex()
		term = number(s.stable, currentTerm)
		noted = number(s.stable, string(keyCommitted))
		return err
	})
	if err != nil {
		return nil, damaged(s.logFile(), err.Error())
	}
	r.Committed = max(r.Committed, noted)
	for index := last.index + 1; index <= end; index++ {
		entry, err := readEntry(s, index)
		if err != nil {
			return nil, fmt.Errorf("read log entry %d: %w", index, err)
		}
		a.Apply(entry)
		if err := failed.cause(); err != nil {
			return nil, err
		}
		r.Index, r.Term = entry.Index, entry.Term
		r.doubt(entry)
	}
	if term == 0 || r.Index == 0 {
		return nil, fmt.Errorf("%w: %s is empty: %s", ErrForgot, s.dir, seeDamaged)
	}
	r.nextEnd = entryID{r.Index + 1, max(term, r.Term) + eraTerms}
	return a, nil
}

// restoreNewest restores the newest snapshot that can be, as a start does. A node may have none.
func restoreNewest(s *stores, a *adapter) (entryID, error) {
	all, err := s.snapshots.List()
	if err != nil {
		return entryID{}, err
	}
	for _, meta := range all {
		body, file, failed := s.snapshots.Open(meta.ID)
		if failed == nil {
			failed = a.Restore(file)
		}
		if failed == nil {
			return entryID{body.Index, body.Term}, nil
		}
		err = errors.Join(err, fmt.Errorf("snapshot %s: %w", meta.ID, failed))
	}
	return entryID{}, err
}

func readEntry(s *stores, index uint64) (*raft.Log, error) {
	var entry raft.Log
	err := guarded(func() error { return s.log.GetLog(index, &entry) })
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		err = errors.New("the entry is missing")
	case err == nil && entry.Index != index:
		err = fmt.Errorf("entry %d is in its place", entry.Index)
	case err == nil:
		err = checkSeal(&entry)
	}
	if err != nil {
		return nil, damaged(s.logFile(), err.Error())
	}
	return &entry, nil
}

// number is a setting of Raft's, zero when there is none.
func number(stable raft.StableStore, key string) uint64 {
	n, err := stable.GetUint64([]byte(key))
	if err != nil {
		return 0
	}
	return n
}

// doubt notes a command that is not known to be committed.
func (r *Recovery) doubt(entry *raft.Log) {
	if entry.Index <= r.Committed || entry.Type != raft.LogCommand {
		return
	}
	if request, _, err := fsm.Decode(entry.Data); err == nil { // it was applied, so there is none
		r.Unsure = append(r.Unsure, Unsure{entry.Index, request})
	}
}

// compute makes the new era's first state.
func (r *Recovery) compute(a *adapter) error {
	member, err := r.member()
	if err != nil {
		return err
	}
	next, err := a.machine.Snapshot().Refound(fsm.Refounding{
		EraID: r.cfg.EraID, Revision: r.nextEnd.index, Term: r.nextEnd.term, Member: member, Now: r.cfg.Now, MendTime: r.cfg.MendTime,
	})
	if err != nil {
		return err
	}
	r.After = next.State()
	r.next = snapshot{machine: next, header: snapshotHeader{snapshotMagic, a.longest.Load()}}
	return nil
}

// member is the node that goes on: one that was a member to the last.
func (r *Recovery) member() (armor.Member, error) {
	m := r.cfg.Member
	was, found := r.Before.Members.Get(string(m.ID))
	switch t, removed := r.Before.Tombstones.Get(string(m.ID)); {
	case !found && removed:
		return m, fmt.Errorf("%w: node %s was removed at %s: a node that was removed does not go on as the cluster",
			armor.ErrDenied, m.ID, t.RemovedAt.UTC().Format(time.RFC3339))
	case !found:
		return m, fmt.Errorf("%w: node %s is no member of the cluster yet, by all that its disk has", armor.ErrDenied, m.ID)
	case m.Certificate.Key != was.Certificate.Key:
		return m, fmt.Errorf("%w: the certificate of node %s has another key than the member of that name: this node was replaced",
			armor.ErrDenied, m.ID)
	case !m.Certificate.NotAfter.After(was.Certificate.NotAfter):
		m.Certificate, m.Chain = was.Certificate, was.Chain
	}
	return m, nil
}

// Commit puts the new era in place, and returns where the node's old Raft folder is kept.
func (r *Recovery) Commit() (kept string, err error) {
	if err := makeEra(r.cfg.DataDir, r.cfg.Member.ID, r.next, r.nextEnd, r.cfg.Logger); err != nil {
		return "", err
	}
	return placeEra(r.cfg.DataDir, r.cfg.Now)
}

// Close gives the directory up.
func (r *Recovery) Close() error { return r.lock.Close() }

// The folders of a data directory that are Raft's. A recovery is made in one, which takes its
// final name when it is whole; from then on it is finished by whoever opens the directory.
const (
	raftFolder       = "raft"
	recoveringFolder = "raft.recovering"
	recoveredFolder  = "raft.recovered"
	formerPrefix     = "raft.before-recover-" // then when
)

// makeEra makes a Raft folder that holds the new era and nothing else.
func makeEra(dir string, node armor.NodeID, first snapshot, at entryID, log *slog.Logger) error {
	folder := filepath.Join(dir, recoveringFolder)
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("remove what an interrupted recovery has left: %w", err)
	}
	s, err := openRaft(folder, openLog, log)
	if err != nil {
		return err
	}
	if err := errors.Join(writeEra(s, node, first, at), s.close()); err != nil {
		return fmt.Errorf("make the new era in %s: %w", folder, err)
	}
	if err := os.Rename(folder, filepath.Join(dir, recoveredFolder)); err != nil {
		return fmt.Errorf("make the new era: %w", err)
	}
	return syncFolder(dir)
}

func writeEra(s *stores, node armor.NodeID, first snapshot, at entryID) error {
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(node), Address: raft.ServerAddress(node)}}}
	_, names := raft.NewInmemTransport(raft.ServerAddress(node)) // the store has it write addresses in an older form
	sink, err := s.snapshots.Create(raft.SnapshotVersionMax, at.index, at.term, alone, 1, names)
	if err != nil {
		return err
	}
	if err := first.Persist(sink); err != nil {
		return err
	}
	return errors.Join(
		s.stable.SetUint64([]byte(currentTerm), at.term),
		s.stable.SetUint64(keyCommitted, at.index),
	)
}

// placeEra puts a folder that is whole in the place of the node's own.
func placeEra(dir string, now time.Time) (kept string, err error) {
	own := filepath.Join(dir, raftFolder)
	if _, err := os.Stat(own); err == nil {
		kept = filepath.Join(dir, formerPrefix+now.UTC().Format("20060102T150405Z"))
		if err := os.Rename(own, kept); err != nil {
			return "", fmt.Errorf("keep the old Raft folder: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for the old Raft folder: %w", err)
	}
	return kept, finishRecovery(dir)
}

// finishRecovery ends a recovery that was interrupted. Before the old folder was moved out of
// the way nothing has happened, and what was made goes; after that there is no way but on.
func finishRecovery(dir string) error {
	made := filepath.Join(dir, recoveredFolder)
	if _, err := os.Stat(made); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	own := filepath.Join(dir, raftFolder)
	if _, err := os.Stat(own); err == nil {
		return os.RemoveAll(made)
	}
	if err := os.Rename(made, own); err != nil {
		return fmt.Errorf("put the new era in place: %w", err)
	}
	return syncFolder(dir)
}
