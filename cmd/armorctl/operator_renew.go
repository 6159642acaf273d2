package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) operatorRenewCommand() *cobra.Command {
	var o signing
	var out string
	cmd := &cobra.Command{
		Use: "renew NAME --peer-ca DIR", Short: "give an operator another certificate of the key it has",
		Long: `Signs another certificate of the operator's key, with the roles that it has, and writes it to
--out: the operator puts it in the place of operator.crt. Without --out it goes where the present
context has its certificate, if NAME is the operator of that. An operator whose certificate has ended is
renewed by another one.`,
		Example: "  armorctl operator renew ann --peer-ca ./peer-ca", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := a.operatorFile(args[0], out)
			if err != nil {
				return err
			}
			ca, lifetime, err := a.signer(cmd.Context(), "operator renew", o)
			if err != nil {
				return err
			}
			return a.renewOperator(cmd.Context(), args[0], ca, lifetime, path)
		},
	}
	signingFlags(cmd, &o)
	cmd.Flags().StringVar(&out, "out", "", "`FILE` for the certificate, PEM (default: that of the context, for its own operator)")
	return cmd
}

// operatorFile is where an operator's renewed certificate goes.
func (a *app) operatorFile(name, out string) (string, error) {
	if out != "" {
		return out, nil
	}
	_, c, err := a.chosen()
	if err != nil {
		return "", err
	}
	if c.Operator != name {
		return "", &fault.Usage{Err: fmt.Errorf("context %s is operator %s's: say with --out where the certificate of %s shall go", c.Name, c.Operator, name)}
	}
	return c.CertFile, nil
}

func (a *app) renewOperator(ctx context.Context, name string, ca issue.CA, lifetime time.Duration, out string) error {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	state, former, err := a.operatorNamed(ctx, client, name)
	if err != nil {
		return err
	}
	if _, err := believed(state, ca); err != nil {
		return err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), former.PublicKey)
	if err != nil {
		return fmt.Errorf("%w: the key of operator %s: %w", armor.ErrInvalid, name, err)
	}
	cert, err := ca.Operator(state.Cluster.Name, name, public, lifetime)
	if err != nil {
		return err
	}
	renewed, err := ca.OperatorFacts(name, cert, former.Roles)
	if err != nil {
		return err
	}
	outcome, err := a.submit(ctx, client, armor.PutOperator{Operator: renewed}, rpc.SubmitOptions{})
	if err != nil {
		return madeAnew(err)
	}
	if err := file.Replace(out, pki.EncodeCertificatesPEM(cert), issue.Public); err != nil {
		return fault.Hinted(err, "run it again: another certificate is made")
	}
	v := a.viewOfOperator(state, renewed)
	v.File, v.Revision = out, outcome.Result.Revision
	return a.show(answer{data: v, tables: []table{facts("", [2]string{"operator", name}, [2]string{"expires", v.NotAfter},
		[2]string{"was good until", stamp(former.Certificate.NotAfter)}, [2]string{"certificate", out})}})
}

// operatorNamed finds an operator, with what its view needs.
func (a *app) operatorNamed(ctx context.Context, client *rpc.Client, name string) (*armor.State, armor.Operator, error) {
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Operators, armor.Environments, armor.Revoked)
	if err != nil {
		return nil, armor.Operator{}, err
	}
	operator, found := state.Operators.Get(name)
	if !found {
		return nil, operator, fault.Hinted(fmt.Errorf("%w: there is no operator %q", armor.ErrNotFound, name), "armorctl operator list")
	}
	return state, operator, nil
}

func (a *app) operatorRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "end an operator for good, by revoking its key",
		Long: `Revokes the operator's key, so that nothing it signs is carried out any more, on any node.
It stays in the list as revoked; operator add NAME makes another of that name, with another key. The last
one who may admit others cannot be removed.`,
		Example: "  armorctl operator remove ann", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.removeOperator(cmd.Context(), args[0]) },
	}
}

func (a *app) removeOperator(ctx context.Context, name string) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, operator, err := a.operatorNamed(reading, client, name)
	if err != nil {
		return err
	}
	a.say("the key of operator %s, with roles %v, will be revoked", name, operator.Roles)
	if err := a.confirm(ctx, name); err != nil {
		return err
	}
	return a.revokeNow(ctx, client, revocation{state: state, wait: rpc.WaitAll, command: armor.Revoke{
		Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: operator.Certificate.Key}},
		Reason:    armor.CessationOfOperation, Comment: "operator " + name + " was removed",
	}})
}
