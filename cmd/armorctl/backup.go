package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc/manifest"
)

// The files of a backup.
const (
	backupState    = "cluster.snapshot"
	backupConfig   = "configuration.yaml"
	backupContext  = "context.yaml"
	backupPeerCA   = "peer-ca.crt"
	backupServerCA = "server-ca.crt"
	backupOperator = "operator.crt"
	backupText     = "BACKUP.txt"
)

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup DIR", Short: "save the state, and the public files of an operator, and say what else to keep",
		Long: `Makes the folder DIR: the cluster's state as snapshot save does, its configuration as
export does, and what is public of the context: addresses, the peer CA's certificate, the
operator's certificate. BACKUP.txt names what is not in it and has to be kept apart from it:
each node's keys and secrets by their names, the CAs' keys, and where they lie. Nothing in
DIR is secret beyond what every operator may read.`,
		Example: "  armorctl backup acme-2026-01-02", Args: exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0]) },
	}
}

// backupView is the answer of backup.
type backupView struct {
	Directory string    `json:"directory"`
	Files     []string  `json:"files"`
	State     savedView `json:"state"`
	NotInIt   []string  `json:"notInIt"`
}

// backup makes the folder beside its place, so that there is a whole one or none.
func (a *app) backup(ctx context.Context, dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fault.Hinted(fmt.Errorf("%w: the folder %s is not empty", armor.ErrConflict, dir), "a folder for each backup, by the day")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir = filepath.Clean(dir)
	pending, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return fmt.Errorf("make a folder beside %s: %w", dir, err)
	}
	v, err := a.fillBackup(ctx, pending)
	if err == nil {
		err = file.Remove(dir) // that is empty, or not there
	}
	if err == nil {
		err = os.Rename(pending, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(pending))
	}
	v.Directory, v.State.File = dir, filepath.Join(dir, backupState)
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"backup", dir}, [2]string{"revision", fmt.Sprint(v.State.Revision)},
		[2]string{"agreed", fmt.Sprintf("%d of %d voters", v.State.Agree, v.State.Voters)},
		[2]string{"not in it", "see " + filepath.Join(dir, backupText)})}})
}

func (a *app) fillBackup(ctx context.Context, dir string) (v backupView, err error) {
	_, access, err := a.chosen()
	if err != nil {
		return v, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if v.State, err = a.saveState(ctx, in(backupState), false); err != nil {
		return v, err
	}
	state, err := a.stateIn(in(backupState), access.PeerCAFile)
	if err != nil {
		return v, err
	}
	configuration, err := manifest.Marshal(state)
	if err != nil {
		return v, err
	}
	texts := []backupFile{{backupConfig, configuration}}
	public, err := publicFiles(access)
	if err != nil {
		return v, err
	}
	texts = append(texts, public...)
	texts = append(texts, backupFile{backupText, []byte(backupPage(access, state, v.State, a.now()))})
	v.Files, v.NotInIt = []string{backupState}, missing
	for _, t := range texts {
		if err := file.Replace(in(t.name), t.content, issue.Secret); err != nil {
			return v, err
		}
		v.Files = append(v.Files, t.name)
	}
	return v, nil
}

type backupFile struct {
	name    string
	content []byte
}

// publicFiles are those of a context but for the key, which it goes on to name.
func publicFiles(access clusterAccess) ([]backupFile, error) {
	var all []backupFile
	for _, c := range []struct{ name, path string }{
		{backupPeerCA, access.PeerCAFile}, {backupServerCA, access.ServerCAFile}, {backupOperator, access.CertFile},
	} {
		if c.path == "" {
			continue
		}
		certs, err := issue.Certificates(c.path) // and nothing else that the file may hold
		if err != nil {
			return nil, err
		}
		all = append(all, backupFile{c.name, pki.EncodeCertificatesPEM(certs...)})
	}
	kept := access
	kept.PeerCAFile, kept.CertFile = backupPeerCA, backupOperator
	if kept.ServerCAFile != "" {
		kept.ServerCAFile = backupServerCA
	}
	text, err := yaml.Marshal(contextFile{Current: kept.Name, Contexts: []clusterAccess{kept}})
	return append(all, backupFile{backupContext, text}), err
}
