package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"log/slog"
)

// snapshotsKept lets a restart fall back when the newest snapshot is damaged.
const snapshotsKept = 3

// failure remembers the first thing that makes it impossible to go on.
type failure struct {
	once sync.Once
	err  atomic.Pointer[error]
	met  chan struct{} // closed with the first failure
}

func newFailure() *failure { return &failure{met: make(chan struct{})} }

func (f *failure) fail(err error) {
	f.once.Do(func() {
		f.err.Store(&err)
		close(f.met)
	})
}

// cause returns the first failure, or nil.
func (f *failure) cause() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// latch stands before Raft's log. After the first failed write the disk's contents
// are unknown (Linux drops dirty pages after a failed fsync, and the next one reports
// success), so no later write may succeed and the process must end. Nor may it go on with
// an entry that is not what was written: every one is sealed when it is stored, and the
// seal is checked whenever it is read.
type latch struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore // beside the log
	file      string             // where both are, for people
	failed    *failure
	elections *elections
	mistakes  *mistakes
	// writing is when the write in progress began, in nanoseconds of the process
	// clock; zero while there is none. The stall watch reads it.
	writing atomic.Int64
	began   time.Time
	// running is set once Raft has read its log: from then on it may ask for entries
	// that are not there any more.
	running atomic.Bool
	// recalled is the last entry that an earlier life saw to be committed; committed says
	// that of this life. No entry up to either may be taken back.
	recalled  atomic.Uint64
	committed func() uint64
}

func newLatch(s *stores, n *Node) *latch {
	n.elections.read(s.stable)
	return &latch{
		log: s.log, stable: s.stable, snapshots: s.snapshots, elections: &n.elections, file: s.logFile(), failed: n.failed, mistakes: n.cfg.mistakes, began: time.Now(),
		committed: func() uint64 { return n.adapter.committed.Load().index },
	}
}

func (l *latch) write(what string, do func() error) error {
	if err := l.failed.cause(); err != nil {
		return err
	}
	l.writing.Store(int64(time.Since(l.began)) + 1)
	err := guarded(do)
	l.writing.Store(0)
	if err != nil {
		err = l.failure(what, err)
		l.failed.fail(err)
	}
	return err
}

// failure says what went wrong with the log.
func (l *latch) failure(what string, err error) error {
	if page, ok := errors.AsType[*unreadable](err); ok {
		return fmt.Errorf("%s: %w", what, damaged(l.file, page.Error()))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// stalled reports how long the write in progress has taken.
func (l *latch) stalled() time.Duration {
	began := l.writing.Load()
	if began == 0 {
		return 0
	}
	return time.Since(l.began) - time.Duration(began)
}

// watch fails the node when a write hangs: Raft's heartbeats go on without its disk,
// so nobody else would take over.
func (l *latch) watch(limit time.Duration, done <-chan struct{}) {
	tick := time.NewTicker(limit / 10)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			if took := l.stalled(); took > limit {
				l.failed.fail(fmt.Errorf("write to the data directory: no answer from the disk for %s", took.Round(time.Millisecond)))
				return
			}
		}
	}
}

// FirstIndex is that of the first entry.
func (l *latch) FirstIndex() (uint64, error) {
	return l.bound("find the first log entry", l.log.FirstIndex)
}

// LastIndex is that of the last entry.
func (l *latch) LastIndex() (uint64, error) {
	return l.bound("find the last log entry", l.log.LastIndex)
}

func (l *latch) bound(what string, ask func() (uint64, error)) (index uint64, err error) {
	err = guarded(func() (err error) {
		index, err = ask()
		return err
	})
	if err != nil {
		err = l.failure(what, err)
		l.failed.fail(err)
	}
	return index, err
}

// GetLog reads an entry. One that cannot be read, or is not what was written, ends the
// node, and the goroutine that asked: Raft would panic over an error and go on with
// anything else. Raft ends its other goroutines as usual.
func (l *latch) GetLog(index uint64, entry *raft.Log) error {
	err := guarded(func() error { return l.log.GetLog(index, entry) })
	switch {
	case err == nil:
		err = l.check(index, entry)
	case !errors.Is(err, raft.ErrLogNotFound):
		err = damaged(l.file, err.Error())
	case !l.hole(index):
		return err
	default:
		err = damaged(l.file, "the entry is missing")
	}
	if err != nil {
		l.failed.fail(l.failure(fmt.Sprintf("read log entry %d", index), err))
		runtime.Goexit()
	}
	return nil
}

func (l *latch) check(index uint64, entry *raft.Log) error {
	err := checkSeal(entry)
	if entry.Index != index {
		err = fmt.Errorf("entry %d is in its place", entry.Index)
	}
	if err == nil || l.mistakes.trustDisk {
		return nil
	}
	return damaged(l.file, err.Error())
}

// hole reports whether an entry that is not there should be. When Raft starts it asks
// only for entries that follow its snapshot.
func (l *latch) hole(index uint64) bool {
	first, _ := l.log.FirstIndex()
	last, _ := l.log.LastIndex()
	return !l.running.Load() || first <= index && index <= last
}

// StoreLog stores one entry.
func (l *latch) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs seals entries and stores them.
func (l *latch) StoreLogs(entries []*raft.Log) error {
	sealed(entries)
	return l.write("store log entries", func() error { return l.log.StoreLogs(entries) })
}

// DeleteRange deletes entries: old ones that a snapshot covers, or the newest when a leader
// has others in their place. The latter it may not do to an entry that was committed.
func (l *latch) DeleteRange(first, last uint64) error {
	end, err := l.LastIndex()
	if err != nil {
		return err
	}
	if known := max(l.recalled.Load(), l.committed()); last >= end && first <= known && !l.mistakes.takeBack {
		l.failed.fail(fmt.Errorf("%w: a leader has another log entry %d, and up to %d they were committed here: %s",
			ErrDiverged, first, known, seeDiverged))
		return l.failed.cause()
	}
	return l.write("delete log entries", func() error { return l.log.DeleteRange(first, last) })
}

// Set keeps a setting of Raft's.
func (l *latch) Set(key, value []byte) error {
	err := l.write("store a Raft setting", func() error { return l.stable.Set(key, value) })
	if err == nil && string(key) == lastVoteFor {
		l.elections.read(l.stable)
	}
	return err
}

// SetUint64 keeps a number: of Raft's, the term. Raft panics when it cannot, so the
// goroutine that asked ends with the node.
func (l *latch) SetUint64(key []byte, value uint64) error {
	if l.write("store a Raft setting", func() error { return l.stable.SetUint64(key, value) }) != nil {
		runtime.Goexit()
	}
	return nil
}

// Get reads a setting.
func (l *latch) Get(key []byte) (value []byte, err error) {
	err = guarded(func() (err error) {
		value, err = l.stable.Get(key)
		return err
	})
	return value, l.read(err)
}

// GetUint64 reads a number.
func (l *latch) GetUint64(key []byte) (value uint64, err error) {
	err = guarded(func() (err error) {
		value, err = l.stable.GetUint64(key)
		return err
	})
	return value, l.read(err)
}

// read ends the node when a setting could not be read. Raft compares the text of the error
// that says that there is none.
func (l *latch) read(err error) error {
	if _, ok := errors.AsType[*unreadable](err); ok {
		err = l.failure("read a Raft setting", err)
		l.failed.fail(err)
	}
	return err
}

// keyCommitted is where the last entry that was seen to be committed is kept.
var keyCommitted = []byte("ArmorCommitted")

// recall reads what an earlier life saw to be committed.
func (l *latch) recall() error {
	index, err := l.GetUint64(keyCommitted)
	if err != nil && err.Error() != "not found" { // as Raft tells it
		return fmt.Errorf("read what was committed: %w", err)
	}
	l.recalled.Store(index)
	return nil
}

// follow keeps up with what is committed, and now and then writes it down: a second that
// is forgotten in a crash takes the log's last entries of that second out of protection.
func (l *latch) follow(ctx context.Context) {
	tick := time.NewTicker(commitNoted)
	defer tick.Stop()
	written := l.recalled.Load()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if index := l.committed(); index > written && l.failed.cause() == nil {
			written = index
			l.SetUint64(keyCommitted, index)
		}
	}
}

// commitNoted is how often that is written down.
const commitNoted = time.Second

// logFile is where the log is, for people.
func (s *stores) logFile() string {
	if s.dir == "" {
		return "the log"
	}
	return filepath.Join(s.dir, logName)
}

const logName = "log.db"

// openStores opens the log and the snapshots below a data directory.
func openStores(dir string, log *slog.Logger) (*stores, error) {
	return openRaft(filepath.Join(dir, raftFolder), openLog, log)
}

// openRaft opens the log and the snapshots in a folder, which is made when absent.
func openRaft(dir string, open func(string) (*raftboltdb.BoltStore, error), log *slog.Logger) (*stores, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make Raft directory: %w", err)
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, newLibraryLog(log, "raft snapshot"))
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	bolt, err := open(filepath.Join(dir, logName))
	if err != nil {
		return nil, err
	}
	return &stores{log: bolt, stable: bolt, snapshots: &sealedSnapshots{files, dir, log}, dir: dir, close: bolt.Close}, nil
}

// openLog opens the log's file for Raft. The free list is rebuilt on opening: writing it with
// each commit costs more than the commit itself once the file has grown.
func openLog(path string) (*raftboltdb.BoltStore, error) {
	return openBolt(path, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: lockPatience})
}

// readLog opens the log's file to be read only.
func readLog(path string) (*raftboltdb.BoltStore, error) {
	return openBolt(path, &bbolt.Options{ReadOnly: true, Timeout: lockPatience})
}

// openBolt opens the log's file, having looked at every page of it: opening it for writing
// reads them in a goroutine of the library's, whose panic nobody could turn into words.
func openBolt(path string, options *bbolt.Options) (bolt *raftboltdb.BoltStore, err error) {
	err = guarded(func() (err error) {
		if err := walkLog(path); err != nil {
			return err
		}
		bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: options, MsgpackUseNewTimeFormat: true})
		return err
	})
	if spoiled(err) {
		return nil, fmt.Errorf("open the Raft log: %w", damaged(path, err.Error()))
	}
	if err != nil {
		return nil, fmt.Errorf("open the Raft log %s: %w", path, err)
	}
	return bolt, nil
}

// lockPatience is how long the log's file may be locked by a process that is ending.
const lockPatience = 5 * time.Second

// spoiled reports whether the library's error means that the file is not a log: whatever
// neither the system said nor a lock that others hold.
func spoiled(err error) bool {
	_, system := errors.AsType[syscall.Errno](err)
	return err != nil && !system && !errors.Is(err, bbolterrors.ErrTimeout)
}

// walkLog reads all pages of the log's file, if there is one.
func walkLog(path string) error {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockPatience})
	if err != nil {
		return err
	}
	err = guarded(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return inOrder(b) })
		})
	})
	return errors.Join(err, db.Close())
}

// inOrder walks a bucket, whose keys must rise: by them its entries are found.
func inOrder(b *bbolt.Bucket) error {
	var last []byte
	return b.ForEach(func(k, _ []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("key %x comes after %x", k, last)
		}
		last = k
		return nil
	})
}
