package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
	"github.com/armordb/armordb/rpc"
)

// maxSaved bounds a saved state that is sent to this node.
const maxSaved = 8 << 30

// Restore makes the node the first of a new era of the cluster whose state was saved, and
// returns once it has that state. What it writes becomes this node's with its certificate, which is
// written last: a node that is stopped before is as it was, and after that it goes on at its next start.
func (i *initializer) Restore(ctx context.Context, d rpc.RestoreData, revoked []armor.Revocation, file io.Reader) error {
	return i.begin(ctx, &founding{restored: true}, func() error { return i.cfg.restore(d, revoked, file) })
}

func (c home) restore(d rpc.RestoreData, revoked []armor.Revocation, file io.Reader) error {
	cas, err := parseCertificates(d.PeerCAs)
	if err != nil {
		return fmt.Errorf("peer CA: %w", err)
	}
	snapshot, about, err := c.receiveSaved(file, cas)
	if err != nil {
		return err
	}
	own := admission{membership: membership{ClusterID: about.Cluster.ID}, chain: d.Chain, peerCAs: cas, gossipKey: d.GossipKey}
	chain, err := c.checkAdmission(own)
	if err != nil {
		return err
	}
	who, err := pki.VerifyPeer(cas, c.Cluster, chain, time.Now())
	if err != nil {
		return err
	}
	_, err = cluster.PrepareRestore(snapshot, cluster.RestoreConfig{
		DataDir: c.DataDir, EraID: string(rpc.NewRequestID()), Term: about.Term, Now: time.Now(), MendTime: d.MendTime, Revoke: revoked,
		Member: armor.Member{
			ID: armor.NodeID(c.Node), Certificate: who.Leaf, Chain: d.Chain,
			PeerAddress: c.Peer.Advertise, ClientAddress: c.Client.Advertise, OpsAddress: c.Ops.Advertise,
		},
	})
	if err != nil {
		return err
	}
	if err := c.writeAdmission(own); err != nil {
		return errors.Join(err, cluster.DropRestore(c.DataDir))
	}
	return nil
}

// receiveSaved reads a saved state that is sent, and refuses one that is not of this node's
// cluster and peer CA, or that no member has signed.
func (c home) receiveSaved(from io.Reader, cas []*x509.Certificate) (s fsm.Snapshot, about saved.Manifest, err error) {
	copied, err := os.CreateTemp(filepath.Join(c.DataDir, "peer"), "restoring-")
	if err != nil {
		return s, about, err
	}
	defer copied.Close()
	defer os.Remove(copied.Name())
	size, err := io.Copy(copied, io.LimitReader(from, maxSaved+1))
	if err == nil && size > maxSaved {
		err = fmt.Errorf("%w: more than %d bytes", armor.ErrInvalid, int64(maxSaved))
	}
	if err != nil {
		return s, about, fmt.Errorf("receive the saved state: %w", err)
	}
	file, err := saved.NewFile(copied, size)
	if err != nil {
		return s, about, err
	}
	state, err := file.Verify(cas)
	switch {
	case err != nil:
		return s, about, err
	case state.Cluster.Name != c.Cluster:
		return s, about, fmt.Errorf("%w: this node is of cluster %s, and the state of %s", armor.ErrInvalid, c.Cluster, state.Cluster.Name)
	case !areOf(state.Cluster, cas):
		return s, about, fmt.Errorf("%w: the peer CA of the state is another one", armor.ErrInvalid)
	}
	machine := fsm.New()
	if err := machine.Restore(file.Snapshot()); err != nil {
		return s, about, err
	}
	return machine.Snapshot(), file.Manifest, nil
}

// areOf reports whether all certificates are peer CAs of the cluster.
func areOf(c armor.Cluster, cas []*x509.Certificate) bool {
	for _, ca := range cas {
		if !slices.ContainsFunc(c.PeerCAs(), func(der []byte) bool { return bytes.Equal(der, ca.Raw) }) {
			return false
		}
	}
	return true
}

// awaitState waits until this node has a state.
func (n *node) awaitState(ctx context.Context) error {
	for {
		state, superseded := n.cluster.Current()
		if state.Revision > 0 {
			n.log.Info("restored a saved state", armor.KeyRevision, state.Revision, armor.KeyEra, state.Cluster.Era.String())
			return nil
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return fmt.Errorf("%w: the node is ending, and finishes at its next start: %w", armor.ErrUncertain, context.Cause(ctx))
		}
	}
}
