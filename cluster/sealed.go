package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

// sealedSnapshots keeps a digest beside each snapshot's meta data: the index, the term and
// the servers, which Raft believes as they stand in a text file. What the snapshot itself
// holds is covered by a checksum of the library's over the whole, by one for each section,
// and by the state's digest. Snapshots of earlier builds have no digest.
type sealedSnapshots struct {
	raft.SnapshotStore
	dir string
	log *slog.Logger
}

const sealName = "seal"

// List returns the snapshots that are what was written. When none of those that are there
// is, Raft must not take it that there never was one.
func (s *sealedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	var sound []*raft.SnapshotMeta
	for _, meta := range all {
		if err = s.check(meta); err == nil {
			sound = append(sound, meta)
			continue
		}
		s.log.Error("a snapshot is damaged", armor.KeyErr, err)
	}
	if len(sound) == 0 {
		return nil, err
	}
	return sound, nil
}

// Open opens a snapshot that is what was written.
func (s *sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	if err := s.check(meta); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return meta, r, nil
}

// Create begins a snapshot.
func (s *sealedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, servers raft.Configuration,
	serversIndex uint64, transport raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, servers, serversIndex, transport)
	if err != nil {
		return nil, err
	}
	return &sealingSink{sink, s}, nil
}

// sealingSink seals a snapshot when it is whole.
type sealingSink struct {
	raft.SnapshotSink
	store *sealedSnapshots
}

// Close ends the snapshot.
func (k *sealingSink) Close() error {
	if err := k.SnapshotSink.Close(); err != nil {
		return err
	}
	return k.store.seal(k.ID())
}

func (s *sealedSnapshots) seal(id string) error {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return err
	}
	for _, meta := range all {
		if meta.ID != id {
			continue
		}
		digest, err := metaDigest(meta)
		if err != nil {
			return err
		}
		return replaceFile(s.file(id), []byte(digest+"\n"))
	}
	return nil // newer ones have taken its place
}

func (s *sealedSnapshots) file(id string) string {
	return filepath.Join(s.dir, "snapshots", id, sealName)
}

func metaDigest(meta *raft.SnapshotMeta) (string, error) {
	text, err := json.Marshal(meta)
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:]), err
}

// check holds a snapshot's meta data against its seal.
func (s *sealedSnapshots) check(meta *raft.SnapshotMeta) error {
	if _, err := os.Stat(filepath.Dir(s.file(meta.ID))); err != nil {
		return damaged(filepath.Join(s.dir, "snapshots"), fmt.Sprintf("a snapshot says that it is %s, which is not there", meta.ID))
	}
	stored, err := os.ReadFile(s.file(meta.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	digest, failed := metaDigest(meta)
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("check snapshot %s: %w", meta.ID, err)
	}
	if strings.TrimSpace(string(stored)) != digest {
		return damaged(filepath.Join(filepath.Dir(s.file(meta.ID)), "meta.json"), "the checksum of its meta data does not hold")
	}
	return nil
}
