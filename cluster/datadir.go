package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/armordb/armordb/armor"
)

// How long a node waits before its first server login after a life that did not end
// cleanly: until then its former server connections may still be open. PostgreSQL
// notices a dead client within client_connection_check_interval (2 s) when the
// machine still runs, and by keepalives when it does not.
const (
	waitSameBoot  = 3 * time.Second
	waitOtherBoot = 15 * time.Second
)

// lifeRecord is what one life of a node leaves of itself. The lock file that it names is
// held for as long as the life lasts. So a process that holds this lock, in the same boot
// of the same machine, knows that the life is over.
type lifeRecord struct {
	Node armor.NodeID `json:"node"`
	// Cluster is written once the log says it: from then on the log is never empty again.
	Cluster string `json:"cluster,omitempty"`
	// Era is the cluster's as the life knew it: it never goes back.
	Era    armor.Era `json:"era,omitzero"`
	Epoch  uint64    `json:"epoch"`
	BootID string    `json:"boot_id"`
	Device uint64    `json:"device"`
	Inode  uint64    `json:"inode"`
	Clean  bool      `json:"clean"` // it ended with no server connection open
}

// dataDir is a locked data directory.
type dataDir struct {
	path string
	lock *os.File
	// expected is the cluster that this node was told it belongs to; empty: it was not.
	expected string
	// succeeds is the epoch of the former life when it is proven over, else zero.
	succeeds uint64
	// wait is how long former server connections may still be open.
	wait time.Duration

	mu     sync.Mutex // guards record and its file
	record lifeRecord
}

const maxLifeRecord = 4096

// openDataDir makes, locks and checks the directory and records the new life.
func openDataDir(path string, node armor.NodeID, cluster string, epoch uint64) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if err != nil {
		return nil, err
	}
	d := &dataDir{path: path, lock: lock, expected: cluster}
	if err := d.begin(node, epoch); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w: another process runs this node", path, err), f.Close())
	}
	return f, nil
}

func (d *dataDir) begin(node armor.NodeID, epoch uint64) error {
	now, err := d.describe(node, epoch)
	if err != nil {
		return err
	}
	former, err := d.read()
	if err != nil {
		return err
	}
	if former != nil {
		if err := former.mayBecome(d.path, node, d.expected); err != nil {
			return err
		}
		now.Cluster, now.Era = former.Cluster, former.Era
		d.succeeds, d.wait = former.end(now)
	}
	d.record = now
	return d.write()
}

func (r *lifeRecord) mayBecome(path string, node armor.NodeID, cluster string) error {
	if r.Node != node {
		return fmt.Errorf("%w: data directory %s belongs to node %q, not to %q: use the directory of this node, or an empty one",
			armor.ErrConflict, path, r.Node, node)
	}
	if cluster != "" && r.Cluster != "" && r.Cluster != cluster {
		return fmt.Errorf("%w: data directory %s belongs to cluster %s, not to %s: use an empty one to join another cluster",
			armor.ErrConflict, path, r.Cluster, cluster)
	}
	return nil
}

// end says what is known of the former life's end.
func (r *lifeRecord) end(now lifeRecord) (succeeds uint64, wait time.Duration) {
	sameBoot := r.BootID == now.BootID
	if sameBoot && r.Device == now.Device && r.Inode == now.Inode {
		succeeds = r.Epoch
	}
	switch {
	case r.Clean:
		return succeeds, 0
	case sameBoot:
		return succeeds, waitSameBoot
	default:
		return succeeds, waitOtherBoot
	}
}

func (d *dataDir) describe(node armor.NodeID, epoch uint64) (lifeRecord, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return lifeRecord{}, fmt.Errorf("read the machine's boot id: %w", err)
	}
	info, err := d.lock.Stat()
	if err != nil {
		return lifeRecord{}, fmt.Errorf("look at the lock: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return lifeRecord{}, errors.New("this system does not tell inodes")
	}
	return lifeRecord{Node: node, Epoch: epoch, BootID: strings.TrimSpace(string(boot)), Device: uint64(stat.Dev), Inode: stat.Ino}, nil
}

func (d *dataDir) file() string { return filepath.Join(d.path, "life.json") }

// read returns the former life's record, or nil in a fresh directory.
func (d *dataDir) read() (*lifeRecord, error) {
	data, err := os.ReadFile(d.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the former life: %w", err)
	}
	r, err := parseLife(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(), err)
	}
	return r, nil
}

func parseLife(data []byte) (*lifeRecord, error) {
	if len(data) > maxLifeRecord {
		return nil, fmt.Errorf("%w: the record of the former life is longer than %d bytes", armor.ErrInvalid, maxLifeRecord)
	}
	var r lifeRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: the record of the former life is damaged: %v", armor.ErrInvalid, err)
	}
	if _, err := armor.ParseNodeID(string(r.Node)); err != nil {
		return nil, fmt.Errorf("the record of the former life: %w", err)
	}
	return &r, nil
}

// belongsTo records the cluster and its era once they are known, and refuses others. began
// reports that the node went on in another era than its former life was in.
func (d *dataDir) belongsTo(c armor.Cluster) (began bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.record.Cluster == c.ID && d.record.Era == c.Era {
		return false, nil
	}
	if d.expected != "" && d.expected != c.ID {
		return false, fmt.Errorf("%w: the log is of cluster %s, and this node was to join %s", armor.ErrConflict, c.ID, d.expected)
	}
	if err := d.record.mayHold(c, d.path); err != nil {
		return false, err
	}
	began = d.record.Cluster != ""
	d.record.Cluster, d.record.Era = c.ID, c.Era
	return began, d.write()
}

// mayHold refuses a log of another cluster, and one of an era that is over or of another that
// went on from the same one: the directory has been in a later one.
func (r *lifeRecord) mayHold(c armor.Cluster, path string) error {
	switch {
	case r.Cluster != "" && r.Cluster != c.ID:
		return fmt.Errorf("%w: the log is of cluster %s, and the data directory of %s", armor.ErrConflict, c.ID, r.Cluster)
	case c.Era.Number < r.Era.Number, c.Era.Number == r.Era.Number && c.Era != r.Era:
		return fmt.Errorf("%w: the log is of era %s of the cluster, and the data directory %s has been in era %s: bring its raft folder back, or %s",
			ErrForgot, c.Era, path, r.Era, seeDamaged)
	}
	return nil
}

// remembers refuses an empty log in the directory of a node that had one: as a voter it
// may have acknowledged what it does not know any more.
func (d *dataDir) remembers(s *stores) error {
	if d.record.Cluster == "" {
		return nil
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return err
	}
	snapshots, err := s.snapshots.List()
	if err != nil {
		return err
	}
	// Without its term it does not know how it has voted, whatever a snapshot says.
	term, err := s.stable.GetUint64([]byte(currentTerm))
	if err == nil && term > 0 && (last > 0 || len(snapshots) > 0) {
		return nil
	}
	return fmt.Errorf("%w: by %s it is of cluster %s, and %s is empty: bring that folder back as it was when the node last ran, or %s",
		ErrForgot, d.file(), d.record.Cluster, s.dir, seeDamaged)
}

// close records how the life ended and gives up the lock.
func (d *dataDir) close(clean bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if clean {
		d.record.Clean = true
		err = d.write()
	}
	return errors.Join(err, d.lock.Close())
}

// write replaces the record so that a crash leaves the old or the new one.
func (d *dataDir) write() error {
	data, err := json.Marshal(d.record)
	if err != nil {
		return err
	}
	if err := replaceFile(d.file(), data); err != nil {
		return fmt.Errorf("write the record of this life: %w", err)
	}
	return nil
}

func replaceFile(path string, data []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
