package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// secrecy says how a CA's key is or will be kept.
type secrecy struct {
	passphraseFile string
	unencrypted    bool
}

// newCA makes a CA in a folder, asking for the passphrase of its key.
func (a *app) newCA(ctx context.Context, dir string, cfg pki.CAConfig, s secrecy) (issue.CA, error) {
	return issue.NewCA(dir, cfg, func() (string, error) {
		if s.unencrypted {
			return "", nil
		}
		return a.passphrase(ctx, s.passphraseFile, "CA "+cfg.CommonName, true)
	})
}

// openCA reads a CA from its folder, asking for the passphrase of its key. kind is what it
// must sign.
func (a *app) openCA(ctx context.Context, dir string, kind pki.CAKind, passphraseFile string) (issue.CA, error) {
	return issue.OpenCA(dir, kind, func(name string) (string, error) {
		return a.passphrase(ctx, passphraseFile, "CA "+name, false)
	})
}

// signing is how the certificate of a node or an operator is signed.
type signing struct {
	peerCA, lifetime, passphraseFile string
}

func signingFlags(cmd *cobra.Command, s *signing) {
	f := cmd.Flags()
	f.StringVar(&s.peerCA, "peer-ca", "", "`folder` of the CA of nodes and operators")
	f.StringVar(&s.lifetime, "lifetime", peerLifetime, "`lifetime` of the certificate")
	passphraseFlag(cmd, &s.passphraseFile)
}

// believed returns the other peer CAs of a cluster beside ca, which must be one of them: what another
// one signs is worth nothing.
func believed(s *armor.State, ca issue.CA) (others []*x509.Certificate, err error) {
	cas, err := parsePeerCAs(s.Cluster)
	if err != nil {
		return nil, err
	}
	for i, c := range cas {
		if c.Equal(ca.Cert) {
			return slices.Delete(cas, i, i+1), nil
		}
	}
	return nil, fault.Hinted(fmt.Errorf("%w: CA %q does not sign nodes and operators of cluster %s", armor.ErrInvalid,
		ca.Cert.Subject.CommonName, s.Cluster.Name), "armorctl peer-ca list; armorctl peer-ca add has the cluster believe another one")
}

// signer opens the CA, and reads how long what it signs shall live; verb is who asks.
func (a *app) signer(ctx context.Context, verb string, s signing) (ca issue.CA, lifetime time.Duration, err error) {
	if lifetime, err = parsePositive("--lifetime", s.lifetime); err != nil {
		return ca, 0, err
	}
	if s.peerCA == "" {
		return ca, 0, &fault.Usage{Err: fmt.Errorf("%s needs --peer-ca, the folder of the CA of nodes and operators", verb)}
	}
	ca, err = a.openCA(ctx, s.peerCA, pki.PeerCA, s.passphraseFile)
	return ca, lifetime, err
}
