package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) operatorRescueCommand() *cobra.Command {
	var o operatorOptions
	cmd := &cobra.Command{
		Use:   "rescue NAME --peer-ca DIR --out DIR",
		Short: "make an operator with the peer CA's key, when the certificates of all others have ended",
		Long: `The way back into a cluster whose operators' certificates have all ended: nobody can change anything, and nobody
can renew an operator. The peer CA's key signs the request, and the cluster accepts it only while it has no operator
with role ca-admin whose certificate is good. It needs a context of the cluster, whose own certificate may have ended.`,
		Example: "  armorctl operator rescue ann --peer-ca ./peer-ca --out ./ann",
		Args:    exactly("NAME"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.rescueOperator(cmd.Context(), args[0], o) },
	}
	signingFlags(cmd, &o.signing)
	f := cmd.Flags()
	f.StringSliceVar(&o.roles, "role", nil, "a `role`; repeatable, or by commas (default: all)")
	f.StringVar(&o.out, "out", "", "`folder` for the operator's files")
	return cmd
}

func (a *app) rescueOperator(ctx context.Context, name string, o operatorOptions) error {
	if len(o.roles) == 0 {
		for _, r := range armor.OperatorRoles() {
			o.roles = append(o.roles, string(r))
		}
	}
	roles, err := o.check("operator rescue")
	if err != nil {
		return err
	}
	ca, lifetime, err := a.signer(ctx, "operator rescue", o.signing)
	if err != nil {
		return err
	}
	_, access, err := a.chosen()
	if err != nil {
		return err
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	cert, err := ca.Operator(access.Cluster, name, key.Public(), lifetime)
	if err != nil {
		return err
	}
	operator, err := ca.OperatorFacts(name, cert, roles)
	if err != nil {
		return err
	}
	client, err := access.rescuer(ca, tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	command := armor.RescueOperator{Operator: operator}
	if err := client.DryRun(ctx, command); err != nil {
		return err
	}
	// The files come first: once the cluster knows the operator, nobody else can become one this way.
	if err := ca.WriteOperator(o.out, cert, key); err != nil {
		return err
	}
	outcome, err := a.submit(ctx, client, command, rpc.SubmitOptions{})
	if err != nil {
		return fault.Hinted(fmt.Errorf("rescue by operator %s: %w", name, err), "its files in %s are of no use unless it was committed all the same: armorctl operator list", o.out)
	}
	a.say("next: armorctl context set %s --cert %s --key %s\nthen renew the other operators and, if their certificates have ended, the nodes", access.Name,
		filepath.Join(o.out, issue.OperatorCertFile), filepath.Join(o.out, issue.OperatorKeyFile))
	return a.showOperator(&armor.State{}, operator, o.out, outcome)
}

// rescuer speaks to the context's cluster as an operator whom it does not know yet, in the peer CA's name.
func (c clusterAccess) rescuer(ca issue.CA, own tls.Certificate) (*rpc.Client, error) {
	if c.ClusterID == "" {
		return nil, fault.Hinted(fmt.Errorf("%w: context %s does not say the cluster's id, which requests are signed for", armor.ErrInvalid, c.Name),
			"use a context that has reached the cluster before, or write clusterId from a node's peer/membership.yaml into the context file")
	}
	key, err := ca.RequestKey()
	if err != nil {
		return nil, err
	}
	trust, err := c.peerTrust()
	if err != nil {
		return nil, err
	}
	trust.Certificate, trust.PeerCAKey = own, key
	return rpc.Open(trust)
}
