package saved

import (
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
)

// Origin is who saved a state, and when; the state does not say it.
type Origin struct {
	Node  armor.NodeID
	Build string // of that node
	Term  uint64 // the latest that the node knew of
	At    time.Time
	By    string // the operator who asked; empty: the node's own schedule
}

// Manifest is what a file says that it holds. It mirrors fsmpb.Manifest.
type Manifest struct {
	Cluster  armor.Cluster
	Revision uint64
	Term     uint64
	Time     time.Time // of the log: about when the newest entry was proposed
	Chain    armor.Digest
	State    armor.Digest
	Level    uint32 // of the log's format
	Node     armor.NodeID
	Build    string
	At       time.Time
	By       string
	Rows     []Count // of the tables that have any
	Length   uint64  // of the snapshot, in bytes
	Digest   armor.Digest
}

// Count is how many rows a table has.
type Count struct {
	Table string
	Rows  uint64
}

// Mark is where the state stands in its cluster's history.
func (m Manifest) Mark() armor.Mark {
	return armor.Mark{Revision: m.Revision, Chain: m.Chain, State: m.State}
}

const (
	maxManifest = 64 << 10 // bytes
	maxTables   = 256
	maxText     = 256 // bytes
)

// about is what a snapshot says of itself; its length and digest are not known yet.
func about(s fsm.Snapshot, o Origin) Manifest {
	state, mark := s.State(), s.Mark()
	m := Manifest{
		Cluster: state.Cluster, Revision: mark.Revision, Time: state.Time, Chain: mark.Chain, State: mark.State, Level: fsm.Level,
		Node: o.Node, Build: o.Build, Term: o.Term, At: o.At.UTC(), By: o.By,
	}
	for _, t := range armor.Tables() {
		if rows := t.Len(state); rows > 0 {
			m.Rows = append(m.Rows, Count{t.Name(), uint64(rows)})
		}
	}
	return m
}

func (m Manifest) marshal() ([]byte, error) {
	message := &fsmpb.Manifest{}
	wire.Log.Fill(message, m)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("%w: a manifest of %d bytes, more than %d", armor.ErrInvalid, len(b), maxManifest)
	}
	if err == nil {
		err = m.check()
	}
	return b, err
}

func readManifest(b []byte) (m Manifest, err error) {
	var message fsmpb.Manifest
	if err := wire.Log.UnmarshalMessage(b, &message); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", armor.ErrInvalid, err)
	}
	if err := wire.Log.Read(&m, &message); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", armor.ErrInvalid, err)
	}
	return m, m.check()
}

// check refuses what no build writes.
func (m Manifest) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: manifest: %s", armor.ErrInvalid, what) }
	if _, err := armor.ParseNodeID(string(m.Node)); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	switch {
	case m.Revision == 0 || m.Cluster.ID == "" || m.Cluster.Name == "":
		return bad("it is of no cluster")
	case len(m.Cluster.ID) > maxText || len(m.Cluster.Name) > maxText || len(m.Build) > maxText || len(m.By) > maxText:
		return bad("a text in it is too long")
	case m.At.IsZero() || m.Length == 0 || m.Digest.IsZero() || m.Chain.IsZero() || m.State.IsZero():
		return bad("it lacks when the state was saved, or a digest")
	case len(m.Rows) > maxTables || slices.ContainsFunc(m.Rows, func(c Count) bool { return c.Rows == 0 || len(c.Table) > maxText }):
		return bad("it counts what no state has")
	}
	return nil
}

// differs names the first thing that the manifest says of the state and the state does not.
func (m Manifest) differs(is Manifest) error {
	for _, c := range []struct {
		what       string
		same       bool
		says, have any
	}{
		{"cluster", m.Cluster.ID == is.Cluster.ID && m.Cluster.Name == is.Cluster.Name &&
			slices.Equal(m.Cluster.PeerCA, is.Cluster.PeerCA) && m.Cluster.CreatedAt.Equal(is.Cluster.CreatedAt), m.Cluster.ID, is.Cluster.ID},
		{"revision", m.Revision == is.Revision, m.Revision, is.Revision},
		{"log time", m.Time.Equal(is.Time), m.Time, is.Time},
		{"history", m.Chain == is.Chain, m.Chain, is.Chain},
		{"digest", m.State == is.State, m.State, is.State},
		{"counts", slices.Equal(m.Rows, is.Rows), m.Rows, is.Rows},
	} {
		if !c.same {
			return fmt.Errorf("%w: the manifest says %s %v, and the state has %v", armor.ErrInvalid, c.what, c.says, c.have)
		}
	}
	return nil
}
