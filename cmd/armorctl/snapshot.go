package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/fsm/saved"
	"github.com/armordb/armordb/rpc"
)

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "the cluster's state in a file", a.snapshotSaveCommand(), a.snapshotInspectCommand(), a.snapshotVerifyCommand(),
		a.snapshotRestoreCommand())
}

// savePatience is how long saving a state may take without --timeout.
const savePatience = 5 * time.Minute

func (a *app) snapshotSaveCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "save FILE", Short: "save the cluster's state, as a majority of its voters has it",
		Long: `Fetches the whole state from one node, with all in it that is committed by now, checks
it, asks each voter whether it has the same at that revision, signs it as the operator and
writes it to FILE (mode 0600). The file holds no private keys and no passwords; armorctl
snapshot inspect says what else is not in it, and armorctl backup writes the rest of what
an operator has beside it.

Nothing is written unless a majority of the voters has the same state. Exit code 3 when a
node has another one, 7 when no majority can be asked.`,
		Example: "  armorctl snapshot save acme-2026-01-02.snapshot", Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.saveState(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			return a.show(answer{data: s, tables: s.tables()})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "overwrite FILE")
	return cmd
}

// savedView is the answer of snapshot save.
type savedView struct {
	File      string          `json:"file"`
	Bytes     int64           `json:"bytes"`
	Cluster   string          `json:"cluster"`
	ClusterID string          `json:"clusterId"`
	Revision  uint64          `json:"revision"`
	LogTime   string          `json:"logTime"`
	History   string          `json:"history"`
	State     string          `json:"state"`
	SavedBy   armor.NodeID    `json:"savedBy"`
	SignedBy  string          `json:"signedBy"` // the operator, beside the node
	Voters    int             `json:"voters"`
	Agree     int             `json:"agree"` // of the voters
	Nodes     []attestingView `json:"nodes"`
}

func (v savedView) tables() []table {
	t := table{columns: []string{"node", "address", "at this revision"}}
	for _, n := range v.Nodes {
		t.row(n.Node, n.Address, n.words())
	}
	return []table{facts("", [2]string{"saved", v.File}, [2]string{"revision", fmt.Sprint(v.Revision)}, [2]string{"state", v.State},
		[2]string{"by node", string(v.SavedBy)}, [2]string{"agreed", fmt.Sprintf("%d of %d voters", v.Agree, v.Voters)}), t}
}

// saveState writes the file once everything about it is known to hold.
func (a *app) saveState(ctx context.Context, path string, force bool) (v savedView, err error) {
	if err := mayWrite(path, force); err != nil {
		return v, err
	}
	_, access, err := a.chosen()
	if err != nil {
		return v, err
	}
	client, err := a.connect()
	if err != nil {
		return v, err
	}
	defer client.Close()
	ctx, cancel := a.within(ctx, savePatience)
	defer cancel()
	pending, err := file.Begin(path, issue.Secret)
	if err != nil {
		return v, err
	}
	v, err = a.fetchState(ctx, client, access, pending)
	if err != nil {
		return v, errors.Join(err, pending.Discard())
	}
	v.File = path
	return v, pending.Commit()
}

// fetchState receives a state, has the voters say that it is theirs, and signs it.
func (a *app) fetchState(ctx context.Context, client *rpc.Client, access clusterAccess, to *file.Pending) (v savedView, err error) {
	err = client.Save(ctx, func() (io.Writer, error) {
		_, err := to.Seek(0, io.SeekStart)
		return to, errors.Join(err, to.Truncate(0))
	})
	if err != nil {
		return v, err
	}
	size, err := to.Seek(0, io.SeekEnd)
	if err != nil {
		return v, err
	}
	f, err := saved.NewFile(to, size)
	if err != nil {
		return v, fmt.Errorf("what the node sent: %w", err)
	}
	state, err := f.Verify(client.PeerCAs())
	if err != nil {
		return v, fmt.Errorf("what the node sent: %w", err)
	}
	m := f.Manifest
	if access.ClusterID != "" && m.Cluster.ID != access.ClusterID {
		return v, fmt.Errorf("%w: node %s sent the state of cluster %s, and context %s is of %s", armor.ErrDenied, m.Node, m.Cluster.ID,
			access.Name, access.ClusterID)
	}
	a.tell("node %s sent %d bytes: revision %d", m.Node, size, m.Revision)
	v = savedView{
		Cluster: m.Cluster.Name, ClusterID: m.Cluster.ID, Revision: m.Revision, LogTime: stamp(m.Time),
		History: m.Chain.String(), State: m.State.String(), SavedBy: m.Node, SignedBy: client.Operator(),
	}
	if err := a.agreedBy(ctx, client, attested{state, m.Mark(), access.places()}, &v); err != nil {
		return v, err
	}
	v.Bytes, err = signState(f, client, to, size)
	return v, err
}

// signState adds the operator's signature, and returns how long the file is then.
func signState(f *saved.File, client *rpc.Client, to io.Writer, size int64) (int64, error) {
	own := client.Certificate()
	key, ok := own.PrivateKey.(crypto.Signer)
	if !ok {
		return 0, fmt.Errorf("%w: the key of operator %s cannot sign", armor.ErrInvalid, client.Operator())
	}
	signature, err := f.Sign(saved.Signer{Kind: pki.Operator, Name: client.Operator(), Chain: own.Certificate, Key: key})
	if err != nil {
		return 0, err
	}
	_, err = to.Write(signature)
	return size + int64(len(signature)), err
}
