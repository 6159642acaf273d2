package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// keptByDefault is how long after its end a certificate can still be looked up.
const keptByDefault = 30 * day

func (a *app) certPruneCommand() *cobra.Command {
	var ended string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "prune", Short: "drop the records of certificates that ended long ago",
		Long: `Takes certificates that ended long ago out of the inventory, and with each the revocation
of that certificate alone: no node lets it in any more. Revocations of keys, identities and issuers
stay. A cluster forgets nothing by itself: run this now and then, with --yes from a timer. It is safe
to run again.`,
		Example: "  armorctl cert prune --ended 90d",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ago, err := parsePositive("--ended", ended)
			if err != nil {
				return err
			}
			if ago < armor.KeptAfterEnd {
				return &fault.Usage{Err: fmt.Errorf("--ended %s: certificates stay in the inventory for %s after their end", ended, span(armor.KeptAfterEnd))}
			}
			if a.globals.requestID != "" {
				return &fault.Usage{Err: errors.New("cert prune makes many requests, and is safe to run again: leave --request-id out")}
			}
			return a.prune(cmd.Context(), a.now().Add(-ago), dryRun)
		},
	}
	f := cmd.Flags()
	f.StringVar(&ended, "ended", span(keptByDefault), "drop those that ended this `duration` ago or earlier")
	f.BoolVar(&dryRun, "dry-run", false, "only count them")
	return cmd
}

// prunedView is the answer of cert prune.
type prunedView struct {
	EndedBefore  string `json:"endedBefore"`
	Certificates int    `json:"certificates"`
	DryRun       bool   `json:"dryRun,omitempty"`
	Revision     uint64 `json:"revision,omitempty"` // of the last part
}

func (a *app) prune(ctx context.Context, before time.Time, dryRun bool) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	v := prunedView{EndedBefore: stamp(before), DryRun: dryRun}
	if v.Certificates, err = a.ended(ctx, client, before); err != nil {
		return err
	}
	if !dryRun && v.Certificates > 0 {
		a.say("certificates that ended before %s and will be forgotten: %d", v.EndedBefore, v.Certificates)
		if err := a.confirm(ctx, "prune"); err != nil {
			return err
		}
		if v.Revision, err = a.pruneInParts(ctx, client, before, v.Certificates); err != nil {
			return err
		}
	}
	word := "dropped"
	if dryRun {
		word = "would be dropped"
	}
	rows := [][2]string{{word, fmt.Sprintf("%d certificates that ended before %s", v.Certificates, v.EndedBefore)}}
	if v.Revision != 0 {
		rows = append(rows, [2]string{"revision", fmt.Sprint(v.Revision)})
	}
	return a.show(answer{data: v, tables: []table{facts("", rows...)}})
}

// ended counts the certificates that ended before a time.
func (a *app) ended(ctx context.Context, client *rpc.Client, before time.Time) (count int, err error) {
	_, err = part{}.turn(func(limit int, after string) (int, string, error) {
		asking, cancel := a.within(ctx, patience)
		defer cancel()
		page := armor.CertificatePage{Until: before, Limit: limit, After: after}
		s, next, err := client.Ask(asking, armor.Question{CertificatePage: page}, armor.Inventory)
		if err != nil {
			return 0, "", err
		}
		count += s.Inventory.Len()
		return s.Inventory.Len(), next, nil
	})
	return count, err
}

// pruneInParts has the cluster forget count certificates, and returns the last part's revision.
func (a *app) pruneInParts(ctx context.Context, client *rpc.Client, before time.Time, count int) (revision uint64, err error) {
	for ; count > 0; count -= armor.MaxPruned {
		committing, cancel := a.within(ctx, patience)
		outcome, err := a.submit(committing, client, armor.PruneCertificates{EndedBefore: before}, rpc.SubmitOptions{})
		cancel()
		if err != nil {
			return revision, fault.Hinted(err, "run it again: what is dropped stays dropped")
		}
		revision = outcome.Result.Revision
	}
	return revision, nil
}
