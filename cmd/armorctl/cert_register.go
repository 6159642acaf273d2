package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

// registerOptions are the flags of cert register.
type registerOptions struct {
	environment, owner, contact string
}

func (a *app) certRegisterCommand() *cobra.Command {
	var o registerOptions
	cmd := &cobra.Command{
		Use: "register FILE", Short: "take a client certificate that another tool issued into the inventory",
		Long: `Registers the first certificate of a PEM file: an environment whose inventory is required
lets in no other, and so does any environment for an identity whose key was out. What follows in
the file are the CA certificates between it and the trust anchor.`,
		Example: "  armorctl cert register checkout.crt --owner payments",
		Args:    exactly("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.register(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.environment, "environment", "", "the `environment` (default: that of the CA that signed it)")
	f.StringVar(&o.owner, "owner", "", "the `team` that answers for it (default: the Identity object's)")
	f.StringVar(&o.contact, "contact", "", "how to reach the owner (default: the Identity object's)")
	return cmd
}

func (a *app) register(ctx context.Context, path string, o registerOptions) error {
	certs, err := issue.Certificates(path)
	if err != nil {
		return err
	}
	if certs[0].IsCA {
		return fault.Hinted(fmt.Errorf("%w: %s holds a CA's certificate", armor.ErrInvalid, path), "armorctl ca import registers CAs")
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	state, _, err := client.Ask(ctx, armor.Question{Leaves: leavesOf(certs)}, armor.Anchors, armor.Identities, armor.Revoked)
	if err != nil {
		return err
	}
	issuer, found := issuerOf(state, certs)
	if !found {
		return fault.Hinted(fmt.Errorf("%w: the issuer of %s is no trust anchor", armor.ErrNotFound, path),
			"put the certificates of the CAs between it and the trust anchor behind it in the file")
	}
	record, err := o.record(state, pki.Facts(certs[0], issuer))
	if err != nil {
		return err
	}
	if _, err := a.submit(ctx, client, armor.RegisterCertificate{Record: record}, rpc.SubmitOptions{}); err != nil {
		return fmt.Errorf("register the certificate of %s: %w", record.Certificate.Identity, err)
	}
	return a.showRegistered(state, record)
}

// record is what the inventory shall say of a certificate.
func (o registerOptions) record(s *armor.State, c armor.Certificate) (armor.CertRecord, error) {
	environment := cmp.Or(o.environment, environmentOf(s, c))
	if environment == "" {
		return armor.CertRecord{}, &fault.Usage{Err: errors.New("the certificate's CA is not a trust anchor itself: say --environment")}
	}
	r := armor.CertRecord{Certificate: c, Environment: environment, Owner: o.owner, Contact: o.contact}
	return r, issue.Answers(s, environment, c.Identity, &r.Owner, &r.Contact)
}

// environmentOf is that of the trust anchor that signed a certificate, if one did.
func environmentOf(s *armor.State, c armor.Certificate) string {
	for anchor := range s.Anchors.Values() {
		if anchor.Certificate.Key == c.ID.Issuer && anchor.Prefix.Matches(c.Identity) {
			return anchor.Environment
		}
	}
	return ""
}

func (a *app) showRegistered(s *armor.State, r armor.CertRecord) error {
	v := viewOfCert(s, r, a.now())
	t := facts("", a.shownOf(v, r)...)
	return a.show(answer{data: v, tables: []table{t}})
}
