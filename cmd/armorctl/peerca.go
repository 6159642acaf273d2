package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

func (a *app) peerCACommand() *cobra.Command {
	return group("peer-ca", "the CA of nodes and operators, and how another takes its place",
		a.peerCAAddCommand(), a.peerCAListCommand(), a.peerCARetireCommand())
}

// peerCAOptions are the flags of peer-ca add.
type peerCAOptions struct {
	out, lifetime                string
	endorser, endorserPassphrase string
	secrecy
}

func (a *app) peerCAAddCommand() *cobra.Command {
	var o peerCAOptions
	cmd := &cobra.Command{
		Use:   "add --out DIR --peer-ca DIR",
		Short: "have a second CA sign nodes and operators, so that it can take the first one's place",
		Long: `Makes a CA in --out, unless there is one, and has the cluster believe it beside the present one. The
present one's key, in --peer-ca, endorses it, so that operators' tools and joining nodes take it from the cluster by
themselves. Without --peer-ca, as when that key is lost, each operator and each joining node must be given its ca.crt.

Then renew every operator and every node with the new one, and retire the old one. Nothing is interrupted.`,
		Example: "  armorctl peer-ca add --out ./peer-ca-2 --peer-ca ./peer-ca", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.addPeerCA(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "`folder` for the new CA's certificate and key")
	f.StringVar(&o.lifetime, "lifetime", "3650d", "the new CA's `lifetime`")
	f.StringVar(&o.endorser, "peer-ca", "", "`folder` of the present CA of nodes and operators, whose key endorses the new one")
	f.StringVar(&o.endorserPassphrase, "peer-ca-passphrase-file", "", "read the passphrase of the present CA's key from `FILE`")
	secrecyFlags(cmd, &o.secrecy)
	return cmd
}

func (a *app) addPeerCA(ctx context.Context, o peerCAOptions) error {
	if o.out == "" {
		return &fault.Usage{Err: errors.New("peer-ca add needs --out, the folder for the new CA")}
	}
	client, state, err := a.peerTrust(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	next, endorsement, err := a.nextPeerCA(ctx, o, state)
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	outcome, err := a.submit(ctx, client, armor.PutPeerCA{Certificate: next.Facts(), DER: next.Cert.Raw, Endorsement: endorsement},
		rpc.SubmitOptions{})
	if err != nil {
		return err
	}
	state.Cluster.NextPeerCA, state.Cluster.Endorsement = next.Cert.Raw, endorsement
	if endorsement == nil {
		a.say("nobody has endorsed it: before nodes are renewed, give %s/ca.crt to every operator (beside what peerCaFile of the context names)", o.out)
	}
	a.say("next:\n  armorctl operator renew NAME --peer-ca %s   for each operator\n  armorctl node renew --all --peer-ca %s\n  armorctl peer-ca list", o.out, o.out)
	return a.showPeerCAs(state, outcome.Result.Revision)
}

// nextPeerCA makes the new CA, or takes up what a command that was cut short has left, and has the
// present one endorse it.
func (a *app) nextPeerCA(ctx context.Context, o peerCAOptions, s *armor.State) (next issue.CA, endorsement []byte, err error) {
	life, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return next, nil, err
	}
	var present issue.CA
	if o.endorser != "" {
		if present, err = a.openCA(ctx, o.endorser, pki.PeerCA, o.endorserPassphrase); err != nil {
			return next, nil, err
		}
		if string(present.Cert.Raw) != string(s.Cluster.PeerCA) {
			return next, nil, fmt.Errorf("%w: the CA in %s is not the one that signs nodes and operators now", armor.ErrInvalid, o.endorser)
		}
	}
	if issue.HasCA(o.out) {
		next, err = issue.LookAt(o.out, pki.PeerCA)
	} else {
		a.say("making a CA of nodes and operators in %s", o.out)
		next, err = a.newCA(ctx, o.out, pki.CAConfig{
			Kind: pki.PeerCA, CommonName: "armor " + s.Cluster.Name + " peers of " + a.now().UTC().Format("2006-01-02"),
			TrustDomain: s.Cluster.TrustDomain(), Lifetime: life, Now: a.now(),
		}, o.secrecy)
	}
	if err == nil && o.endorser != "" {
		endorsement, err = present.Endorse(s.Cluster.Name, next)
	}
	return next, endorsement, err
}

// peerTrust reads what nodes and operators are believed by.
func (a *app) peerTrust(ctx context.Context) (*rpc.Client, *armor.State, error) {
	client, err := a.connect()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	state, _, err := client.Ask(ctx, armor.Question{}, armor.Members, armor.Operators, armor.Environments, armor.Revoked)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, state, nil
}

func (a *app) peerCAListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the CAs of nodes and operators, and who depends on each", Example: "  armorctl peer-ca list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, state, err := a.peerTrust(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			return a.showPeerCAs(state, 0)
		},
	}
}

// peerCAView is one CA of nodes and operators.
type peerCAView struct {
	Name        string   `json:"name"`
	Fingerprint string   `json:"fingerprint"`
	NotAfter    string   `json:"notAfter"`
	Next        bool     `json:"next"` // takes the other one's place
	Endorsed    bool     `json:"endorsed"`
	Nodes       []string `json:"nodes"`     // whose certificates it has signed
	Operators   []string `json:"operators"` // likewise, of those that are good
	Revision    uint64   `json:"revision,omitempty"`
	ends        string
}

func (a *app) viewsOfPeerCAs(s *armor.State) ([]peerCAView, error) {
	views := []peerCAView{}
	for i, der := range s.Cluster.PeerCAs() {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: peer CA: %w", armor.ErrInvalid, err)
		}
		v := peerCAView{
			Name: ca.Subject.CommonName, Fingerprint: pki.Fingerprint(ca).String(), NotAfter: stamp(ca.NotAfter), Next: i > 0,
			Nodes: []string{}, Operators: []string{}, ends: relative(ca.NotAfter, a.now()),
		}
		v.Endorsed = v.Next && len(s.Cluster.Endorsement) > 0
		for m := range s.Members.Values() {
			if m.Certificate.ID.Issuer == pki.SPKI(ca) {
				v.Nodes = append(v.Nodes, string(m.ID))
			}
		}
		for o := range s.Operators.Values() {
			if o.Certificate.ID.Issuer == pki.SPKI(ca) && a.viewOfOperator(s, o).State == valid {
				v.Operators = append(v.Operators, o.Name)
			}
		}
		views = append(views, v)
	}
	return views, nil
}

func (a *app) showPeerCAs(s *armor.State, revision uint64) error {
	views, err := a.viewsOfPeerCAs(s)
	if err != nil {
		return err
	}
	t := table{columns: []string{"fingerprint", "name", "signs", "nodes", "operators", "expires"}}
	for i := range views {
		v := &views[i]
		v.Revision = revision
		use := "now"
		switch {
		case v.Endorsed:
			use = "next, endorsed"
		case v.Next:
			use = "next"
		}
		t.row(v.Fingerprint[:8], v.Name, use, strings.Join(v.Nodes, ","), strings.Join(v.Operators, ","), v.ends)
	}
	return a.show(answer{data: views, tables: []table{t}})
}

func (a *app) peerCARetireCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "retire FINGERPRINT", Short: "stop believing one of two CAs of nodes and operators",
		Long: `Ends one of the two, by the first digits that peer-ca list shows. It is refused while the certificate of a
node or of an operator depends on it, and while a node shows another certificate than it was given. Certificates
that it has signed are worth nothing from then on.`,
		Example: "  armorctl peer-ca retire 5f2c", Args: exactly("FINGERPRINT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.retirePeerCA(cmd.Context(), args[0], force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when a node does not show that it has taken its new certificate into use")
	return cmd
}

func (a *app) retirePeerCA(ctx context.Context, digits string, force bool) error {
	client, state, err := a.peerTrust(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	goes, err := peerCABeginning(state.Cluster, digits)
	if err != nil {
		return err
	}
	if !force {
		if err := a.showTheirOwn(ctx, client, state); err != nil {
			return err
		}
	}
	a.say("what CA %q has signed will be worth nothing any more", goes.Subject.CommonName)
	if err := a.confirm(ctx, pki.Fingerprint(goes).String()[:8]); err != nil {
		return err
	}
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	outcome, err := a.submit(ctx, client, armor.RetirePeerCA{Fingerprint: pki.Fingerprint(goes), Key: pki.SPKI(goes)}, rpc.SubmitOptions{})
	if err != nil {
		return err
	}
	stays := state.Cluster.NextPeerCA
	if string(goes.Raw) == string(stays) {
		stays = state.Cluster.PeerCA
	}
	state.Cluster = armor.Cluster{Name: state.Cluster.Name, PeerCA: stays}
	return a.showPeerCAs(state, outcome.Result.Revision)
}

// peerCABeginning finds a peer CA by the first digits of its fingerprint.
func peerCABeginning(c armor.Cluster, digits string) (*x509.Certificate, error) {
	cas, err := parsePeerCAs(c)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for _, ca := range cas {
		if strings.HasPrefix(pki.Fingerprint(ca).String(), strings.ToLower(digits)) {
			found = append(found, ca)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.Hinted(fmt.Errorf("%w: there is no peer CA whose fingerprint begins with %q", armor.ErrNotFound, digits), "armorctl peer-ca list")
	case 1:
		return found[0], nil
	}
	return nil, &fault.Usage{Err: fmt.Errorf("%q begins the fingerprints of both: give more digits", digits)}
}

// showTheirOwn makes sure that each node shows the certificate that the cluster knows of it: who has not
// taken the last one into use would be believed by nobody.
func (a *app) showTheirOwn(ctx context.Context, client *rpc.Client, s *armor.State) error {
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	for m := range s.Members.Values() {
		cert, err := client.NodeCertificate(ctx, m.ID, m.PeerAddress)
		if err == nil && pki.Fingerprint(cert) != m.Certificate.Fingerprint {
			err = fmt.Errorf("%w: node %s shows certificate %s, and was given %s", armor.ErrConflict, m.ID, cert.SerialNumber.Text(16), m.Certificate.ID.Serial)
		}
		if err != nil {
			return fault.Hinted(err, "nobody would believe it any more: look at its log; --force retires the CA all the same")
		}
	}
	return nil
}

func parsePeerCAs(c armor.Cluster) (cas []*x509.Certificate, err error) {
	for _, der := range c.PeerCAs() {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: peer CA: %w", armor.ErrInvalid, err)
		}
		cas = append(cas, ca)
	}
	return cas, nil
}
