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
	ca, err := x509.ParseCertificate(d.PeerCA)
	if err != nil {
		return fmt.Errorf("%w: peer CA: %w", armor.ErrInvalid, err)
	}
	snapshot, about, err := c.receiveSaved(file, ca)
	if err != nil {
		return err
	}
	own := admission{membership: membership{ClusterID: about.Cluster.ID}, chain: d.Chain, peerCA: d.PeerCA, gossipKey: d.GossipKey}
	_, chain, err := c.checkAdmission(own)
	if err != nil {
		return err
	}
	_, err = cluster.PrepareRestore(snapshot, cluster.RestoreConfig{
		DataDir: c.DataDir, EraID: string(rpc.NewRequestID()), Term: about.Term, Now: time.Now(), MendTime: d.MendTime, Revoke: revoked,
		Member: armor.Member{
			ID: armor.NodeID(c.Node), Certificate: pki.Facts(chain[0], pki.SPKI(ca)),
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
func (c home) receiveSaved(from io.Reader, ca *x509.Certificate) (s fsm.Snapshot, about saved.Manifest, err error) {
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
	state, err := file.Verify(ca)
	switch {
	case err != nil:
		return s, about, err
	case state.Cluster.Name != c.Cluster:
		return s, about, fmt.Errorf("%w: this node is of cluster %s, and the state of %s", armor.ErrInvalid, c.Cluster, state.Cluster.Name)
	case !bytes.Equal(state.Cluster.PeerCA, ca.Raw):
		return s, about, fmt.Errorf("%w: the peer CA of the state is another one", armor.ErrInvalid)
	}
	machine := fsm.New()
	if err := machine.Restore(file.Snapshot()); err != nil {
		return s, about, err
	}
	return machine.Snapshot(), file.Manifest, nil
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
