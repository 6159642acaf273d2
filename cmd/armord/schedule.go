package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
)

const (
	// firstSave is how soon after its start a node saves a state, if that is due: it has caught
	// up by then, and one that is started again and again does nothing else.
	firstSave = time.Minute
	// saveAgain is when a save is tried again that failed.
	saveAgain = 10 * time.Minute
	// spareSpace is what is left free of a disk: the node's log may be on it, and ends the node
	// when it cannot be written.
	spareSpace = 256 << 20
)

// worthSaving are the sides of a state whose change makes another file due. Shares move all
// the time, and are made anew; parts of a revocation that is not in force yet are nothing yet.
var worthSaving = []armor.Aspect{
	armor.Revoking, armor.Listing, armor.Trusting, armor.Granting, armor.Pooling, armor.Joining, armor.Operating,
}

// schedule saves the state again and again, on this node for itself: a disk is lost with its
// node, and no other node has to be asked. Nothing that goes wrong with it ends the node.
type schedule struct {
	cfg     config.Snapshots
	folder  saved.Folder
	current func() fsm.Snapshot
	write   func(w io.Writer, s fsm.Snapshot) error
	free    func(dir string) (bytes uint64, known bool)
	log     *slog.Logger

	newest saved.Stored // the zero value: none is known
	bytes  atomic.Int64 // of the newest file
	// covered is when the newest file was last known to have what is worth saving, in Unix
	// nanoseconds; zero: there is none.
	covered                 atomic.Int64
	saved, failed, unneeded atomic.Uint64
}

// run saves until ctx ends.
func (s *schedule) run(ctx context.Context) error {
	if s.cfg.Every == 0 {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(s.begin(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			timer.Reset(s.turn(time.Now()))
		}
	}
}

// begin looks at what is there, and returns how long to wait.
func (s *schedule) begin(now time.Time) time.Duration {
	err := s.folder.Sweep()
	all, unread := s.folder.List()
	if err = errors.Join(err, unread); err != nil {
		s.log.Warn("the folder of saved states cannot be read", armor.KeyErr, err)
	}
	if len(all) == 0 {
		return min(firstSave, s.cfg.Every)
	}
	s.took(all[len(all)-1], now)
	age := now.Sub(s.newest.At)
	return min(max(s.cfg.Every-age, firstSave), s.cfg.Every)
}

// took notes the newest file. Its time is no more in the future than the clock was wrong.
func (s *schedule) took(newest saved.Stored, now time.Time) {
	s.newest = newest
	if about, err := os.Stat(newest.Path); err == nil {
		s.bytes.Store(about.Size())
	}
	at := newest.At
	if at.After(now) {
		at = now
	}
	s.covered.Store(at.UnixNano())
}

// turn saves the state if that is due, and returns how long to wait.
func (s *schedule) turn(now time.Time) time.Duration {
	state := s.current()
	if state.Revision() == 0 {
		return firstSave // it is joining
	}
	if s.suffices(state.State()) {
		s.unneeded.Add(1)
		s.covered.Store(now.UnixNano())
		return s.cfg.Every
	}
	began := time.Now()
	path := s.folder.Path(state.Revision(), now)
	if err := s.put(path, state); err != nil {
		s.failed.Add(1)
		s.log.Error("the state could not be saved", armor.KeyRevision, state.Revision(), armor.KeyErr, err)
		return min(saveAgain, s.cfg.Every)
	}
	s.saved.Add(1)
	s.took(saved.Stored{Path: path, Revision: state.Revision(), At: now}, now)
	removed, err := s.folder.Prune(s.cfg.Keep, path)
	if err != nil {
		s.log.Warn("saved states that are older could not be removed", armor.KeyErr, err)
	}
	s.log.Info("state saved", armor.KeyRevision, state.Revision(), armor.KeyObjects, path, armor.KeyTook, time.Since(began),
		armor.KeyCount, removed)
	return s.cfg.Every
}

// suffices reports whether the newest file is there still, whole, and has what is worth saving.
func (s *schedule) suffices(state *armor.State) bool {
	if s.newest.Path == "" || s.newest.Revision > state.Revision ||
		state.Differs(&armor.State{Revision: s.newest.Revision}, worthSaving...) {
		return false
	}
	if err := whole(s.newest.Path); err != nil {
		s.log.Warn("the newest saved state is of no use, and another is made", armor.KeyErr, err)
		return false
	}
	return true
}

func whole(path string) error {
	f, err := saved.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Whole(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// put writes a file, and reads it back before older ones are given up for it.
func (s *schedule) put(path string, state fsm.Snapshot) error {
	if err := os.MkdirAll(s.folder.Dir, 0o700); err != nil {
		return err
	}
	if free, known := s.free(s.folder.Dir); known && free < spareSpace+2*uint64(s.bytes.Load()) {
		return fmt.Errorf("%w: %s has %d MB left: remove files, or name another disk in snapshots.directory", armor.ErrExhausted,
			s.folder.Dir, free>>20)
	}
	pending, err := file.Begin(path, 0o600)
	if err != nil {
		return err
	}
	if err := s.write(pending, state); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), pending.Discard())
	}
	if err := pending.Commit(); err != nil {
		return err
	}
	return whole(path)
}

// age is how long ago the newest file had all that is worth saving; false: there is none.
func (s *schedule) age(now time.Time) (time.Duration, bool) {
	at := s.covered.Load()
	return now.Sub(time.Unix(0, at)), at != 0
}
