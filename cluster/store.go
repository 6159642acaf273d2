package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

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
// success), so no later write may succeed and the process must end.
type latch struct {
	log       raft.LogStore
	stable    raft.StableStore
	failed    *failure
	elections *elections
	// writing is when the write in progress began, in nanoseconds of the process
	// clock; zero while there is none. The stall watch reads it.
	writing atomic.Int64
	began   time.Time
}

func newLatch(s *stores, failed *failure, elections *elections) *latch {
	elections.read(s.stable)
	return &latch{log: s.log, stable: s.stable, failed: failed, elections: elections, began: time.Now()}
}

func (l *latch) write(what string, do func() error) error {
	if err := l.failed.cause(); err != nil {
		return err
	}
	l.writing.Store(int64(time.Since(l.began)) + 1)
	err := do()
	l.writing.Store(0)
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		l.failed.fail(err)
	}
	return err
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

func (l *latch) FirstIndex() (uint64, error) { return l.log.FirstIndex() }
func (l *latch) LastIndex() (uint64, error)  { return l.log.LastIndex() }

func (l *latch) GetLog(index uint64, entry *raft.Log) error {
	err := l.log.GetLog(index, entry)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		l.failed.fail(fmt.Errorf("read log entry %d: %w", index, err))
	}
	return err
}

func (l *latch) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *latch) StoreLogs(entries []*raft.Log) error {
	return l.write("store log entries", func() error { return l.log.StoreLogs(entries) })
}

func (l *latch) DeleteRange(first, last uint64) error {
	return l.write("delete log entries", func() error { return l.log.DeleteRange(first, last) })
}

func (l *latch) Set(key, value []byte) error {
	err := l.write("store a Raft setting", func() error { return l.stable.Set(key, value) })
	if err == nil && string(key) == lastVoteFor {
		l.elections.read(l.stable)
	}
	return err
}

func (l *latch) SetUint64(key []byte, value uint64) error {
	return l.write("store a Raft setting", func() error { return l.stable.SetUint64(key, value) })
}

func (l *latch) Get(key []byte) ([]byte, error)       { return l.stable.Get(key) }
func (l *latch) GetUint64(key []byte) (uint64, error) { return l.stable.GetUint64(key) }

// openStores opens the log and the snapshots below dir.
func openStores(dir string, log *slog.Logger) (*stores, error) {
	dir = filepath.Join(dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make Raft directory: %w", err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, newLibraryLog(log, "raft snapshot"))
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	// The free list is rebuilt on opening: writing it with each commit costs more than
	// the commit itself once the file has grown.
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(dir, "log.db"),
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: 5 * time.Second},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open Raft log in %s: %w", dir, err)
	}
	return &stores{log: bolt, stable: bolt, snapshots: snapshots, close: bolt.Close}, nil
}
