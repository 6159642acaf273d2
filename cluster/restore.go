package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// RestoreConfig says which node goes on from a state that was saved.
type RestoreConfig struct {
	DataDir string // of a node that belongs to no cluster
	Member  armor.Member
	EraID   string
	Term    uint64 // the latest that is known of the state's cluster
	Now     time.Time
	// MendTime takes log time, which is in the future, back to Now.
	MendTime bool
	Revoke   []armor.Revocation // that are known from elsewhere
	Logger   *slog.Logger
}

// PrepareRestore makes the first state of a new era of a saved one, in which the node is alone,
// and leaves it where the node's next start takes it from. DropRestore takes that back.
func PrepareRestore(state fsm.Snapshot, cfg RestoreConfig) (*armor.State, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockFile(filepath.Join(cfg.DataDir, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := isFresh(cfg.DataDir); err != nil {
		return nil, err
	}
	at := entryID{state.Revision() + 1, cfg.Term + eraTerms}
	next, err := state.Refound(fsm.Refounding{
		EraID: cfg.EraID, Revision: at.index, Term: at.term, Member: cfg.Member, Now: cfg.Now, MendTime: cfg.MendTime, Revoke: cfg.Revoke,
	})
	if err != nil {
		return nil, err
	}
	// How long leases of its cluster ran once is not saved; what its environments allow is.
	first := snapshot{machine: next, header: snapshotHeader{snapshotMagic, int64(longestLive(state.State()))}}
	return next.State(), makeEra(cfg.DataDir, cfg.Member.ID, first, at, cfg.Logger)
}

// isFresh refuses a directory in which a member has lived.
func isFresh(dir string) error {
	life, err := (&dataDir{path: dir}).read()
	if err != nil {
		return err
	}
	if life != nil && life.Cluster != "" {
		return fmt.Errorf("%w: a member of cluster %s has lived in %s: use an empty data directory", armor.ErrConflict, life.Cluster, dir)
	}
	switch _, err := os.Stat(filepath.Join(dir, raftFolder, logName)); {
	case err == nil:
		return fmt.Errorf("%w: there is a log in %s: use an empty data directory", armor.ErrConflict, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for a log: %w", err)
	}
	return nil
}

// DropRestore removes what PrepareRestore has left for a node that never became a member.
func DropRestore(dir string) error {
	for _, folder := range []string{recoveringFolder, recoveredFolder} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			return fmt.Errorf("remove what an interrupted restore has left: %w", err)
		}
	}
	return nil
}
