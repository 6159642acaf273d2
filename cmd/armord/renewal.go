package main

import (
	"context"
	"crypto"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
)

// followCertificate takes what an operator has signed for this node's key into use, until ctx
// ends. What cannot be is said, and the certificate in use stays.
func (n *node) followCertificate(ctx context.Context) error {
	var before *armor.State
	for {
		state, superseded := n.cluster.Current()
		if state.Differs(before, armor.Joining) {
			m, _ := state.Members.Get(n.cfg.Node)
			if err := n.renew(m); err != nil {
				n.log.Warn("a renewed node certificate cannot be taken into use", armor.KeySerial, m.Certificate.ID.Serial, armor.KeyErr, err)
			}
		}
		before = state
		select {
		case <-superseded:
		case <-ctx.Done():
			return nil
		}
	}
}

// renew writes the member's certificate where this node's is, unless that one lasts as long.
func (n *node) renew(m armor.Member) error {
	if len(m.Chain) == 0 || !m.Certificate.NotAfter.After(n.own.ends()) {
		return nil
	}
	ca, err := readCertificate(n.cfg.Peer.CAFile)
	if err != nil {
		return fmt.Errorf("peer CA: %w", err)
	}
	key, ok := n.own.current.Load().certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: the key of this node cannot sign", armor.ErrInvalid)
	}
	chain, err := n.cfg.ownChain(ca, m.Chain, key)
	if err != nil {
		return err
	}
	if err := file.Replace(n.cfg.Peer.CertFile, pki.EncodeCertificatesPEM(chain...), 0o600); err != nil {
		return err
	}
	return n.own.reload()
}
