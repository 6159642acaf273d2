package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// exportOptions are the flags of revocation export.
type exportOptions struct {
	from, peerCA string
	force        bool
}

func (a *app) revocationExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use: "export FILE", Short: "write all revocations to a file, for revocation import",
		Long: `Writes every revocation of the cluster, or of a saved state (--from), as JSON, one a line,
with the cluster's id and the revision. revocation import adds to another cluster, or to
one that was restored, what it does not have of them.`,
		Example: "  armorctl revocation export revoked.jsonl\n  armorctl revocation export revoked.jsonl --from acme-2026-01-02.snapshot",
		Args:    exactly("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.revocationExport(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "of the saved state in a `FILE`, which is verified; no node is asked")
	f.StringVar(&o.peerCA, "peer-ca", "", "with --from, "+peerCAUsage)
	f.BoolVar(&o.force, "force", false, "overwrite FILE")
	return cmd
}

// exportView is the answer of revocation export.
type exportView struct {
	File string `json:"file"`
	revocationHead
}

func (a *app) revocationExport(ctx context.Context, path string, o exportOptions) error {
	if err := mayWrite(path, o.force); err != nil {
		return err
	}
	if o.peerCA != "" && o.from == "" {
		return &fault.Usage{Err: errors.New("--peer-ca goes with --from")}
	}
	state, by, err := a.revokedIn(ctx, o)
	if err != nil {
		return err
	}
	head := revocationHead{
		Format: revocationFormat, Cluster: state.Cluster.Name, ClusterID: state.Cluster.ID, Revision: state.Revision,
		LogTime: stamp(state.Time), Exported: stamp(a.now()), By: by, Count: state.Revocations.Len(),
	}
	if head.Count > maxRevocationLines {
		return fmt.Errorf("%w: %d revocations, and a file holds %d", armor.ErrExhausted, head.Count, maxRevocationLines)
	}
	pending, err := file.Begin(path, issue.Secret)
	if err != nil {
		return err
	}
	if err := writeRevocations(pending, head, state); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), pending.Discard())
	}
	if err := pending.Commit(); err != nil {
		return err
	}
	return a.show(answer{data: exportView{path, head}, tables: []table{facts("", [2]string{"written", path},
		[2]string{"revocations", fmt.Sprint(head.Count)}, [2]string{"revision", fmt.Sprint(head.Revision)})}})
}

// revokedIn is a state with its revocations, and which operator asked a node for it.
func (a *app) revokedIn(ctx context.Context, o exportOptions) (s *armor.State, by string, err error) {
	if o.from != "" {
		s, err = a.stateIn(o.from, o.peerCA)
		return s, "", err
	}
	client, err := a.connect()
	if err != nil {
		return nil, "", err
	}
	defer client.Close()
	ctx, cancel := a.within(ctx, savePatience)
	defer cancel()
	s, err = client.State(ctx, armor.Revoked)
	return s, client.Operator(), err
}

// mayWrite refuses to overwrite a file that nobody has said to overwrite.
func mayWrite(path string, force bool) error {
	if file.Exist(path) && !force {
		return fault.Hinted(fmt.Errorf("%w: there is a file %s already", armor.ErrConflict, path), "another name, or --force")
	}
	return nil
}
