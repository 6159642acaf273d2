package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
)

// filedTrust is what this node has in files of its peers' CAs and keys. It counts until the node knows
// what the cluster knows, and then not any more.
type filedTrust struct {
	cas  []*x509.Certificate
	pins map[armor.NodeID]armor.Digest
}

func (n *node) peerCAs() []*x509.Certificate {
	if f := n.filed.Load(); f != nil {
		return f.cas
	}
	return nil
}

func (n *node) pins() map[armor.NodeID]armor.Digest {
	if f := n.filed.Load(); f != nil {
		return f.pins
	}
	return nil
}

// followOwnTrust keeps the files by which this node and its peers believe one another those of the
// state, until ctx ends. What cannot be taken into use is said, and what is in use stays.
func (n *node) followOwnTrust(ctx context.Context) error {
	var before *armor.State
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		state, superseded := n.cluster.Current()
		learned := n.filed.Load() != nil && n.cluster.AdmitNew("") == nil
		if learned { // what the cluster knows: its word alone counts from now on
			n.filed.Store(nil)
			tick.Stop()
		}
		if state.Cluster.ID != "" && (learned || state.Differs(before, armor.Joining)) {
			if err := n.keepOwnTrust(state); err != nil {
				n.log.Warn("what the cluster says of its own certificates cannot be taken into use", armor.KeyErr, err)
			}
		}
		before = state
		select {
		case <-superseded:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *node) keepOwnTrust(s *armor.State) error {
	cas, err := parseCertificates(s.Cluster.PeerCAs())
	if err != nil {
		return fmt.Errorf("peer CA: %w", err)
	}
	m, _ := s.Members.Get(n.cfg.Node)
	return errors.Join(n.keepPeerCAs(cas), n.keepPins(s), n.renew(cas, m))
}

// keepPeerCAs writes the peer CAs down for the next start, at which there is no state yet. Until the
// node knows what the cluster knows the file stays: an operator may have put a CA there that this
// node has slept through.
func (n *node) keepPeerCAs(cas []*x509.Certificate) error {
	if n.filed.Load() != nil {
		return nil
	}
	kept, err := readCertificates(n.cfg.Peer.CAFile)
	if err == nil && sameCertificates(kept, cas) {
		return nil
	}
	return file.Replace(n.cfg.Peer.CAFile, pki.EncodeCertificatesPEM(cas...), 0o600)
}

// keepPins writes the members' keys down, likewise: nodes whose certificates have all ended find one
// another by them.
func (n *node) keepPins(s *armor.State) error {
	pins := map[armor.NodeID]string{}
	for m := range s.Members.Values() {
		pins[m.ID] = m.Certificate.Key.String()
	}
	known, err := n.cfg.readMembership()
	if err != nil || maps.Equal(known.Pins, pins) {
		return err
	}
	known.ClusterID, known.Pins = s.Cluster.ID, pins
	return n.cfg.writeMembership(known)
}

// renew writes the member's certificate where this node's is, if it is the later one, or if others do
// not believe this node's.
func (n *node) renew(cas []*x509.Certificate, m armor.Member) error {
	inUse := n.own.current.Load().certificate
	if len(m.Chain) == 0 || pki.Fingerprint(inUse.Leaf) == m.Certificate.Fingerprint {
		return nil
	}
	key, ok := inUse.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: the key of this node cannot sign", armor.ErrInvalid)
	}
	if _, unbelieved := n.cfg.ownChain(cas, inUse.Certificate, key); unbelieved == nil && !n.own.precedes(m.Certificate) {
		return nil
	}
	chain, err := n.cfg.ownChain(cas, m.Chain, key)
	if err != nil {
		return err
	}
	if err := file.Replace(n.cfg.Peer.CertFile, pki.EncodeCertificatesPEM(chain...), 0o600); err != nil {
		return err
	}
	return n.own.reload()
}
