package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

const (
	peerCALifetime = 10 * 365 * day
	peerLifetime   = "365d" // of nodes' and operators' certificates
)

// initOptions are the flags of init.
type initOptions struct {
	socket, peerCA, operator, lifetime, serverCA string
	secrecy
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init --socket PATH",
		Short: "make a new cluster of the first node",
		Long: `Makes a new cluster. It runs on the machine of the first node and speaks to it over
its admin socket. The CA of nodes and operators is made in --peer-ca unless there is
one, the node's certificate request is signed, and an operator with every role is
made, whose certificate and key go beside the context file. The new context is named
by --context, else as the cluster.`,
		Example: "  armorctl init --socket /var/lib/armor/admin.sock --peer-ca ./peer-ca --operator ann",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.initialize(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "the admin `socket` of the node (adminSocket in its configuration)")
	f.StringVar(&o.peerCA, "peer-ca", "", "`folder` of the CA of nodes and operators (default: peer-ca beside the operator's key)")
	f.StringVar(&o.operator, "operator", "admin", "`name` of the first operator")
	f.StringVar(&o.lifetime, "lifetime", peerLifetime, "`lifetime` of the node's and the operator's certificates")
	f.StringVar(&o.serverCA, "server-ca", "", "the CA that clients verify the nodes with, a PEM `FILE` for the context to name")
	secrecyFlags(cmd, &o.secrecy)
	return cmd
}

// secrecyFlags are for the commands that may make a CA.
func secrecyFlags(cmd *cobra.Command, s *secrecy) {
	passphraseFlag(cmd, &s.passphraseFile)
	cmd.Flags().BoolVar(&s.unencrypted, "unencrypted", false, "keep a new CA's key without a passphrase: for development")
}

// passphraseFlag is for the commands that use a CA's key.
func passphraseFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "passphrase-file", "", "read the passphrase of the CA's key from `FILE`")
}

func (a *app) initialize(ctx context.Context, o initOptions) error {
	if o.socket == "" {
		return &fault.Usage{Err: errors.New("init needs --socket, the node's admin socket")}
	}
	lifetime, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx, time.Minute)
	defer cancel()
	client, err := rpc.OpenInit(o.socket)
	if err != nil {
		return err
	}
	defer client.Close()
	node, err := client.Identify(ctx)
	if err != nil {
		return fmt.Errorf("ask the node at %s who it is: %w", o.socket, err)
	}
	b, err := a.prepareInit(ctx, o, node, lifetime)
	if err != nil {
		return err
	}
	if err := client.Initialize(ctx, b.data); err != nil {
		return fault.Hinted(fmt.Errorf("initialise node %s: %w", node.Node, err),
			"if an earlier init got further than it could tell: armorctl context add %s --addr %s --cert %s --key %s --peer-ca %s",
			b.access.Name, node.PeerAddress, b.contexts.in(b.access.CertFile), b.contexts.in(b.access.KeyFile), b.contexts.in(b.access.PeerCAFile))
	}
	return a.finishInit(b)
}

// birth is a cluster about to be made.
type birth struct {
	data     rpc.InitData
	contexts *contextFile
	access   clusterAccess
	peerCA   string // folder
}

// prepareInit makes all that init needs and writes the operator's files: once the
// cluster exists, nobody else can get into it.
func (a *app) prepareInit(ctx context.Context, o initOptions, node rpc.InitIdentity, lifetime time.Duration) (birth, error) {
	contexts, err := a.loadContexts()
	if err != nil {
		return birth{}, err
	}
	name := cmp.Or(a.globals.context, node.Cluster)
	b := birth{contexts: contexts, access: accessFiles(name, o.operator), peerCA: o.peerCA}
	if b.peerCA == "" {
		b.peerCA = contexts.in(filepath.Join(name, "peer-ca"))
	}
	b.access.Cluster, b.access.Addresses = node.Cluster, []string{node.PeerAddress}
	if o.serverCA != "" {
		if b.access.ServerCAFile, err = filepath.Abs(o.serverCA); err != nil {
			return birth{}, fmt.Errorf("find %s: %w", o.serverCA, err)
		}
	}
	if err := contexts.put(b.access); err != nil {
		return birth{}, err
	}
	ca, err := a.peerCA(ctx, b.peerCA, node.Cluster, o.secrecy)
	if err != nil {
		return birth{}, err
	}
	operator, err := firstOperator(contexts, b.access, ca, lifetime)
	if err != nil {
		return birth{}, err
	}
	cert, err := ca.Node(node.Cluster, node.Node, node.CSR, lifetime)
	if err != nil {
		return birth{}, err
	}
	b.data = initData(node, ca, cert, operator)
	return b, nil
}

// accessFiles names the files of a new context, relative to the context file.
func accessFiles(context, operator string) clusterAccess {
	in := func(file string) string { return filepath.Join(context, file) }
	return clusterAccess{
		Name: context, Operator: operator,
		CertFile: in(issue.OperatorCertFile), KeyFile: in(issue.OperatorKeyFile), PeerCAFile: in(issue.PeerCAFile),
	}
}

// peerCA opens the CA of nodes and operators, or makes it in an empty folder.
func (a *app) peerCA(ctx context.Context, dir, cluster string, s secrecy) (issue.CA, error) {
	if issue.HasCA(dir) {
		return a.openCA(ctx, dir, pki.PeerCA, s.passphraseFile)
	}
	a.say("making the CA of nodes and operators in %s", dir)
	return a.newCA(ctx, dir, pki.CAConfig{
		Kind: pki.PeerCA, CommonName: "armor " + cluster + " peers",
		TrustDomain: pki.ClusterDomain(cluster), Lifetime: peerCALifetime, Now: a.now(),
	}, s)
}

// firstOperator makes the operator's key and certificate, or takes up those that an
// init which was cut short has left: the cluster may know them already.
func firstOperator(f *contextFile, c clusterAccess, ca issue.CA, lifetime time.Duration) (armor.Operator, error) {
	if file.Exist(f.in(c.KeyFile)) && file.Exist(f.in(c.CertFile)) {
		cert, err := issue.Certificate(f.in(c.CertFile))
		if err != nil {
			return armor.Operator{}, err
		}
		return ca.OperatorFacts(c.Operator, cert, armor.OperatorRoles())
	}
	key, err := pki.NewKey()
	if err != nil {
		return armor.Operator{}, err
	}
	cert, err := ca.Operator(c.Cluster, c.Operator, key.Public(), lifetime)
	if err != nil {
		return armor.Operator{}, err
	}
	if err := ca.WriteOperator(filepath.Dir(f.in(c.KeyFile)), cert, key); err != nil {
		return armor.Operator{}, err
	}
	return ca.OperatorFacts(c.Operator, cert, armor.OperatorRoles())
}

func initData(node rpc.InitIdentity, ca issue.CA, cert *x509.Certificate, operator armor.Operator) rpc.InitData {
	return rpc.InitData{
		Chain: [][]byte{cert.Raw, ca.Cert.Raw}, GossipKey: newGossipKey(),
		Bootstrap: armor.Bootstrap{
			Cluster: armor.Cluster{ID: string(rpc.NewRequestID()), Name: node.Cluster, PeerCA: ca.Cert.Raw},
			Member: armor.Member{
				ID: node.Node, Certificate: pki.Facts(cert, pki.SPKI(ca.Cert)), Voter: true,
				PeerAddress: node.PeerAddress, ClientAddress: node.ClientAddress, OpsAddress: node.OpsAddress,
			},
			Operator: operator,
		},
	}
}

// initView is the answer of init.
type initView struct {
	Cluster   string       `json:"cluster"`
	ClusterID string       `json:"clusterId"`
	Node      armor.NodeID `json:"node"`
	Operator  string       `json:"operator"`
	Context   string       `json:"context"`
	PeerCA    string       `json:"peerCa"`
}

func (a *app) finishInit(b birth) error {
	bootstrap := b.data.Bootstrap
	i := len(b.contexts.Contexts) - 1 // prepareInit has put it last
	b.contexts.Contexts[i].ClusterID = bootstrap.Cluster.ID
	b.contexts.Current = b.access.Name
	if err := b.contexts.save(); err != nil {
		return err
	}
	a.say("the CA's key in %s admits nodes and operators: keep it offline\nnext:\n"+
		"  armorctl ca init --environment production --out ./ca/production\n"+
		"  armorctl join-token create NODE", b.peerCA)
	return a.show(answer{
		data: initView{bootstrap.Cluster.Name, bootstrap.Cluster.ID, bootstrap.Member.ID, b.access.Operator, b.access.Name, b.peerCA},
		tables: []table{facts("",
			[2]string{"cluster", bootstrap.Cluster.Name}, [2]string{"cluster id", bootstrap.Cluster.ID},
			[2]string{"first node", string(bootstrap.Member.ID)}, [2]string{"operator", b.access.Operator},
			[2]string{"context", b.access.Name}, [2]string{"peer CA", b.peerCA},
		)},
	})
}
