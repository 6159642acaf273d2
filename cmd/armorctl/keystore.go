package main

import (
	"context"

	"github.com/armordb/armordb/armor/pki"
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
