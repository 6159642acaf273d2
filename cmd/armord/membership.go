package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armord/config"
)

// membership is what makes a node one of a cluster, in files: its certificate and key,
// the peer CA, the gossip key, and the addresses by which it finds the others the first
// time.
type membership struct {
	ClusterID string                  `yaml:"clusterId"`
	Seeds     map[armor.NodeID]string `yaml:"seeds,omitempty"` // peer addresses of voters at the time of joining
	// Pins are the members' keys, as this node has known them last.
	Pins map[armor.NodeID]string `yaml:"pins,omitempty"`
}

// keys are the pins.
func (m membership) keys() map[armor.NodeID]armor.Digest {
	keys := map[armor.NodeID]armor.Digest{}
	for node, text := range m.Pins {
		if key, err := armor.ParseDigest(text); err == nil { // a damaged one pins nobody
			keys[node] = key
		}
	}
	return keys
}

// home is where a node lives: its configuration, and the files that it finds by it.
type home struct {
	config.Config
	file string // that the configuration was read from, for SIGHUP; empty: from none
}

// enrolled reports whether the node has been given what it needs. The certificate is
// written last.
func (c home) enrolled() bool {
	return file.Exist(c.Peer.CertFile, c.Peer.KeyFile, c.Peer.CAFile, c.Gossip.KeyFile)
}

func (c home) membershipFile() string { return filepath.Join(c.DataDir, "peer", "membership.yaml") }

// readMembership returns what joining has written down: nothing for a node whose files an
// operator has put there.
func (c home) readMembership() (membership, error) {
	var m membership
	text, err := os.ReadFile(c.membershipFile())
	if isMissing(err) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read what joining has left: %w", err)
	}
	if err := config.Guard(func() error { return yaml.UnmarshalWithOptions(text, &m, yaml.Strict()) }); err != nil {
		return m, fmt.Errorf("%w: %s: %s", armor.ErrInvalid, c.membershipFile(), yaml.FormatError(err, false, false))
	}
	return m, nil
}

// admission is what a node is given when it becomes a member.
type admission struct {
	membership
	chain     [][]byte // DER, leaf first
	peerCAs   []*x509.Certificate
	gossipKey []byte
}

// writeAdmission checks that the admission is for this node and its key, and writes it
// down.
func (c home) writeAdmission(a admission) error {
	chain, err := c.checkAdmission(a)
	if err != nil {
		return err
	}
	if err := c.writeMembership(a.membership); err != nil {
		return err
	}
	gossip := base64.StdEncoding.EncodeToString(a.gossipKey) + "\n"
	for _, f := range []struct {
		path    string
		content []byte
	}{
		{c.Peer.CAFile, pki.EncodeCertificatesPEM(a.peerCAs...)},
		{c.Gossip.KeyFile, []byte(gossip)},
		{c.Peer.CertFile, pki.EncodeCertificatesPEM(chain...)},
	} {
		if err := file.Replace(f.path, f.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeMembership replaces what is written down of the cluster.
func (c home) writeMembership(m membership) error {
	text, err := yaml.Marshal(m)
	if err != nil {
		return err
	}
	return file.Replace(c.membershipFile(), text, 0o600)
}

func (c home) checkAdmission(a admission) ([]*x509.Certificate, error) {
	if len(a.gossipKey) != gossipKeySize {
		return nil, fmt.Errorf("%w: a gossip key of %d bytes, not %d", armor.ErrInvalid, len(a.gossipKey), gossipKeySize)
	}
	key, err := c.nodeKey()
	if err != nil {
		return nil, err
	}
	return c.ownChain(a.peerCAs, a.chain, key)
}

// ownChain reads this node's certificate and its issuers, DER, and refuses what is not for the node
// and its key.
func (c home) ownChain(cas []*x509.Certificate, ders [][]byte, key crypto.Signer) (chain []*x509.Certificate, err error) {
	if chain, err = parseCertificates(ders); err != nil {
		return nil, fmt.Errorf("certificate of this node: %w", err)
	}
	own, err := pki.VerifyPeer(cas, c.Cluster, chain, time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate of this node: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("key of this node: %w", err)
	}
	if own.Kind != pki.Node || own.Name != c.Node || own.Leaf.Key != sha256.Sum256(public) {
		return nil, fmt.Errorf("%w: the certificate is not for node %s and its key", armor.ErrInvalid, c.Node)
	}
	return chain, nil
}

const gossipKeySize = 32

// gossipKey reads the key that all gossip is encrypted with.
func (c home) gossipKey() ([]byte, error) {
	text, err := os.ReadFile(c.Gossip.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the gossip key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != gossipKeySize {
		return nil, fmt.Errorf("%w: %s does not hold %d bytes in base64", armor.ErrInvalid, c.Gossip.KeyFile, gossipKeySize)
	}
	return key, nil
}

// nodeKey returns the node's key, making it when there is none: it never leaves the
// node.
func (c home) nodeKey() (crypto.Signer, error) {
	text, err := os.ReadFile(c.Peer.KeyFile)
	if isMissing(err) {
		return c.makeNodeKey()
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	key, err := pki.ParsePrivateKeyPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Peer.KeyFile, err)
	}
	return key, nil
}

func (c home) makeNodeKey() (crypto.Signer, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, file.Replace(c.Peer.KeyFile, text, 0o600)
}

// request returns the node's certificate request: the same bytes at each start, since
// a request that was filed is recognised by them.
func (c home) request(key crypto.Signer) ([]byte, error) {
	path := filepath.Join(c.DataDir, "peer", "node.csr")
	csr, err := os.ReadFile(path)
	if err == nil && isRequestOf(csr, key) {
		return csr, nil
	}
	if err != nil && !isMissing(err) {
		return nil, fmt.Errorf("read the node's certificate request: %w", err)
	}
	csr, err = pki.NewCSR(key, pki.NodeIdentity(c.Cluster, armor.NodeID(c.Node)))
	if err != nil {
		return nil, err
	}
	return csr, file.Replace(path, csr, 0o600)
}

// isRequestOf reports whether the key has not been replaced since.
func isRequestOf(csr []byte, key crypto.Signer) bool {
	parsed, err := pki.ParseCSR(csr)
	if err != nil {
		return false
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(parsed.PublicKey)
}

// makeFolders makes the folders that a node writes to, for its eyes only.
func (c home) makeFolders() error {
	var all error
	for _, dir := range []string{c.DataDir, filepath.Join(c.DataDir, "peer"), filepath.Dir(c.AdminSocket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			all = errors.Join(all, fmt.Errorf("make folder: %w", err))
		}
	}
	return all
}
