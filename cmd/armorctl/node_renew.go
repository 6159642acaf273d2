package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
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

// renewOptions are the flags of node renew.
type renewOptions struct {
	signing
	cert, out string
	all       bool
}

func (a *app) nodeRenewCommand() *cobra.Command {
	var o renewOptions
	cmd := &cobra.Command{
		Use: "renew NODE --peer-ca DIR | --all --peer-ca DIR", Short: "give a node another certificate while it runs",
		Long: `Signs another certificate of the key that the node has. The node takes it into use at once, and
serves on. With --all every member gets one.

A node whose certificate has ended is known by its key, to the other nodes and to an armorctl that has met it
before. For one that does not answer give a copy of its node.crt as --cert, and put what --out writes in its
place. That works without a cluster that answers, too; run it again when it does, so that the cluster knows
the new certificate.`,
		Example: "  armorctl node renew --all --peer-ca ./peer-ca\n  armorctl node renew n2 --peer-ca ./peer-ca --cert node.crt --out renewed.crt",
		Args:    atMost("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args, a.globals.requestID); err != nil {
				return err
			}
			ca, lifetime, err := a.signer(cmd.Context(), "node renew", o.signing)
			if err != nil {
				return err
			}
			return a.renewNodes(cmd.Context(), armor.NodeID(append(args, "")[0]), renewal{o, ca, lifetime})
		},
	}
	signingFlags(cmd, &o.signing)
	f := cmd.Flags()
	f.StringVar(&o.cert, "cert", "", "the node's certificate, a PEM `FILE`, instead of asking the node for it")
	f.StringVar(&o.out, "out", "", "also write the new one, with its CA, to a PEM `FILE`")
	f.BoolVar(&o.all, "all", false, "renew every member")
	return cmd
}

func (o renewOptions) check(args []string, id armor.RequestID) error {
	switch {
	case (len(args) == 1) == o.all:
		return &fault.Usage{Err: errors.New("renew which node? say its name, or --all")}
	case o.all && (o.cert != "" || o.out != "" || id != ""):
		return &fault.Usage{Err: errors.New("--cert, --out and --request-id are for one node")}
	}
	return nil
}

// renewal is what a node is renewed with.
type renewal struct {
	renewOptions
	ca   issue.CA
	life time.Duration
}

// renewedView is one node of the answer of node renew.
type renewedView struct {
	Node        armor.NodeID `json:"node"`
	Serial      string       `json:"serial"`
	Fingerprint string       `json:"fingerprint"`
	Former      string       `json:"formerNotAfter"`
	NotAfter    string       `json:"notAfter"`
	Revision    uint64       `json:"revision"`
}

func (a *app) renewNodes(ctx context.Context, node armor.NodeID, r renewal) error {
	client, err := a.connect()
	if err != nil {
		return a.renewBlind(node, r, err) // the operator's certificate may have ended on the same day
	}
	defer client.Close()
	reading, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(reading, armor.Members)
	if err != nil {
		return a.renewBlind(node, r, err)
	}
	if _, err := believed(state, r.ca); err != nil {
		return err
	}
	nodes := []armor.NodeID{node}
	if r.all {
		nodes = nil
		for m := range state.Members.Values() {
			nodes = append(nodes, m.ID)
		}
	}
	views := []renewedView{}
	t := table{columns: []string{"node", "certificate", "good until", "was good until"}}
	for _, n := range nodes {
		v, err := a.renewNode(ctx, client, state, n, r)
		if err != nil {
			return errors.Join(a.showRenewed(views, t), err)
		}
		views = append(views, v)
		t.row(string(v.Node), shortSerial(v.Serial), v.NotAfter, v.Former)
	}
	return a.showRenewed(views, t)
}

func (a *app) showRenewed(views []renewedView, t table) error {
	if len(views) == 0 {
		return nil
	}
	return a.show(answer{data: views, tables: []table{t}})
}

func (a *app) renewNode(ctx context.Context, client *rpc.Client, s *armor.State, node armor.NodeID, r renewal) (renewedView, error) {
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	member, found := s.Members.Get(string(node))
	if !found {
		return renewedView{}, fault.Hinted(fmt.Errorf("%w: there is no node %q", armor.ErrNotFound, node), "armorctl node list")
	}
	former, err := r.former(ctx, client, member)
	if err != nil {
		return renewedView{}, err
	}
	if pki.SPKI(former) != member.Certificate.Key {
		return renewedView{}, fmt.Errorf("%w: node %s was admitted with another key than that of %s", armor.ErrConflict, node,
			cmp.Or(r.cert, member.PeerAddress))
	}
	cert, err := r.ca.Renewed(s.Cluster.Name, node, former, r.life)
	if err != nil {
		return renewedView{}, err
	}
	if err := r.write(cert); err != nil {
		return renewedView{}, err
	}
	leaf := pki.Facts(cert, pki.SPKI(r.ca.Cert))
	outcome, err := a.submit(ctx, client, armor.RenewMember{Node: node, Certificate: leaf, Chain: [][]byte{cert.Raw, r.ca.Cert.Raw}},
		rpc.SubmitOptions{})
	if err != nil {
		return renewedView{}, fmt.Errorf("renew node %s: %w", node, madeAnew(err))
	}
	return renewedView{node, leaf.ID.Serial, leaf.Fingerprint.String(), stamp(member.Certificate.NotAfter), stamp(leaf.NotAfter),
		outcome.Result.Revision}, nil
}

// former is a certificate of the node's key.
func (o renewOptions) former(ctx context.Context, client *rpc.Client, m armor.Member) (*x509.Certificate, error) {
	if o.cert != "" {
		return issue.Certificate(o.cert)
	}
	cert, err := client.NodeCertificate(ctx, m.ID, m.PeerAddress)
	if err != nil {
		return nil, fault.Hinted(err, "with a copy of its node.crt as --cert the node need not answer")
	}
	return cert, nil
}

func (r renewal) write(cert *x509.Certificate) error {
	if r.out == "" {
		return nil
	}
	return file.Replace(r.out, pki.EncodeCertificatesPEM(cert, r.ca.Cert), issue.Public)
}

// renewBlind signs for a cluster that does not answer, as when all its certificates have ended.
func (a *app) renewBlind(node armor.NodeID, r renewal, unanswered error) error {
	if r.cert == "" || r.out == "" {
		return unanswered
	}
	former, err := issue.Certificate(r.cert)
	if err != nil {
		return err
	}
	id, err := pki.URIIdentity(former)
	if err != nil {
		return fmt.Errorf("%s: %w", r.cert, err)
	}
	cluster, kind, name, err := pki.ParsePeerIdentity(id)
	if err != nil || kind != pki.Node || name != string(node) {
		return fmt.Errorf("%w: %s is not the certificate of node %s", armor.ErrInvalid, r.cert, node)
	}
	if err := former.CheckSignatureFrom(r.ca.Cert); err != nil {
		return fmt.Errorf("%w: %s is not of CA %q: %w", armor.ErrInvalid, r.cert, r.ca.Cert.Subject.CommonName, err)
	}
	cert, err := r.ca.Renewed(cluster, node, former, r.life)
	if err != nil {
		return err
	}
	if err := r.write(cert); err != nil {
		return err
	}
	return fault.Hinted(fmt.Errorf("the certificate is in %s, and the cluster could not be told: %w", r.out, unanswered),
		"put it in the place of the node's node.crt; run the same command again when the cluster answers")
}
