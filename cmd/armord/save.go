package main

import (
	"bufio"
	"crypto"
	"fmt"
	"io"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
)

// save writes a state of this node as a file that it signs; by is the operator who asked,
// empty for the node itself.
func (n *node) save(w io.Writer, s fsm.Snapshot, by string) error {
	pair, err := n.own.get()
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: the key of %s cannot sign", armor.ErrInvalid, n.cfg.Peer.CertFile)
	}
	if s.Revision() == 0 {
		return fmt.Errorf("%w: this node has no state yet", armor.ErrUnavailable)
	}
	buffered := bufio.NewWriterSize(w, 64<<10)
	o := saved.Origin{
		Node: armor.NodeID(n.cfg.Node), Build: version, Term: n.cluster.Status().Term, At: time.Now(), By: by,
	}
	if err := saved.Write(buffered, s, o, saved.Signer{Kind: pki.Node, Name: n.cfg.Node, Chain: pair.Certificate, Key: key}); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	return buffered.Flush()
}
