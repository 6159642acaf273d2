package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

func (a *app) caImportCommand() *cobra.Command {
	var o caOptions
	var all bool
	cmd := &cobra.Command{
		Use: "import FILE --environment ENV", Short: "have the cluster trust a CA that is kept elsewhere",
		Long: `Has the cluster trust the first CA certificate of a PEM file, a root or an intermediate, for the
clients of one environment. Certificates behind it in the file are those of the CAs above it: a
revocation of their keys then ends it, too. With --all each certificate of the file is trusted by
itself.

A SPIFFE bundle (JSON) brings all CAs of its trust domain, whose certificates may be for servers, too.`,
		Example: `  armorctl ca import intermediate_ca.crt --environment production --prefix 'spiffe://acme.internal/app/*'
  armorctl ca import bundle.json --environment production`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.caImport(cmd.Context(), args[0], o, all) },
	}
	trustFlags(cmd, &o)
	cmd.Flags().BoolVar(&all, "all", false, "trust each CA of the file by itself")
	return cmd
}

func (a *app) caImport(ctx context.Context, path string, o caOptions, all bool) error {
	if o.environment == "" {
		return &fault.Usage{Err: errors.New("ca import needs --environment")}
	}
	cas, svid, err := issue.ImportCAs(path, all)
	if err != nil {
		return err
	}
	if o.name != "" && len(cas) > 1 {
		return &fault.Usage{Err: errors.New("--name is for one CA, and the file holds several")}
	}
	o.svid = o.svid || svid
	var anchors []armor.TrustAnchor
	for _, ca := range cas {
		anchor, err := o.anchor(ca, a.now())
		if err != nil {
			return err
		}
		anchors = append(anchors, anchor)
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	state, err := client.State(ctx, armor.Environments, armor.Anchors)
	if err != nil {
		return err
	}
	if err := boundAlready(state, anchors); err != nil {
		return err
	}
	environment, isNew, err := o.environmentIn(state)
	if err != nil {
		return err
	}
	outcome, err := a.trust(ctx, client, newTrust{environment, isNew, anchors})
	if err != nil {
		return err
	}
	var views []anchorView
	var tables []table
	for _, anchor := range anchors {
		view := viewOfAnchor(anchor)
		view.Revision = outcome.Result.Revision
		views, tables = append(views, view), append(tables, anchorFacts(anchor, a.now()))
	}
	return a.show(answer{data: views, tables: tables})
}

// boundAlready finds the anchor that the leader would refuse, before some of them are registered.
func boundAlready(s *armor.State, anchors []armor.TrustAnchor) error {
	for _, a := range anchors {
		for known := range s.Anchors.Values() {
			same := known.Environment == a.Environment && known.Prefix == a.Prefix && known.Name == a.Name && known.SVID == a.SVID
			if known.Certificate.Fingerprint == a.Certificate.Fingerprint && !same {
				return fmt.Errorf("%w: CA %s is trusted already: in environment %s as %s with prefix %s",
					armor.ErrConflict, a.Certificate.Fingerprint.Short(), known.Environment, known.Name, known.Prefix)
			}
		}
	}
	return nil
}
