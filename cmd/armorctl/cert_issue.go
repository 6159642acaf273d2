package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

// issueOptions are the flags of cert issue.
type issueOptions struct {
	environment, ca, lifetime, csr, owner, contact string
	out, replaces, serverCA, passphraseFile        string
	overwrite                                      bool
	format                                         formatOptions
}

func (a *app) certIssueCommand() *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue IDENTITY --ca DIR",
		Short: "make a client certificate, register it and write it to a folder",
		Long: `Makes a key on this machine, signs a certificate for it with the CA in --ca and
registers it in the inventory; only then are the files written: client.crt, the key as
--format says and, when known, ca.crt, by which the client verifies the nodes. With --csr
the key stays where the request was made.

  pem         client.key, with client.crt for libpq and most drivers
  pk8         client.pk8, the key for pgjdbc
  p12         client.p12, key and certificate in one file for pgjdbc and other Java
  env         client.env, which a shell reads: PGHOST, PGSSLCERT and the like
  pg_service  pg_service.conf, a section of it for PGSERVICEFILE
  k8s         client-secret.yaml, a Secret of type kubernetes.io/tls for kubectl apply

IDENTITY is a SPIFFE id, or the name of an Identity object that names exactly one.
Without --out the files go where armorctl connect finds them.`,
		Example: `  armorctl cert issue checkout --environment production --ca ./ca/production --owner payments --out ./checkout
  armorctl cert issue checkout --ca ./ca/production --out ./checkout --format pem,p12,pg_service
  armorctl cert issue spiffe://production.acme.internal/app/checkout/host/web-3 --ca ./ca/production --csr web-3.csr --out .`,
		Args: exactly("IDENTITY"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.issue(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.environment, "environment", "", "the `environment` (default: the CA's)")
	f.StringVar(&o.ca, "ca", "", "`folder` of the client CA")
	f.StringVar(&o.lifetime, "lifetime", "30d", "the certificate's `lifetime`")
	f.StringVar(&o.csr, "csr", "", "sign this certificate request, a PEM `FILE`, instead of making a key")
	f.StringVar(&o.owner, "owner", "", "the `team` that answers for it (default: the Identity object's)")
	f.StringVar(&o.contact, "contact", "", "how to reach the owner (default: the Identity object's)")
	f.StringVar(&o.out, "out", "", "`folder` for the files")
	f.StringVar(&o.replaces, "replaces", "",
		"the certificate that this one succeeds: first digits of its `fingerprint` or serial, as in cert list")
	f.StringVar(&o.serverCA, "server-ca", "", "the CA that clients verify the nodes with, a PEM `FILE` (default: the context's)")
	f.BoolVar(&o.overwrite, "overwrite", false, "replace files of an earlier certificate in --out")
	formatFlags(cmd, &o.format)
	passphraseFlag(cmd, &o.passphraseFile)
	return cmd
}

func (a *app) issue(ctx context.Context, name string, o issueOptions) error {
	lifetime, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return err
	}
	if o.ca == "" {
		return &fault.Usage{Err: errors.New("cert issue needs --ca, the folder of the client CA")}
	}
	f, err := o.format.parse(o.csr != "")
	if err != nil {
		return err
	}
	if err := a.completeIssue(&o, name); err != nil {
		return err
	}
	place, err := f.place(ctx, a, name, o)
	if err != nil {
		return err
	}
	r := issue.Request{
		CADir: o.ca, Identity: name, Environment: o.environment, Lifetime: lifetime, CSRFile: o.csr,
		Owner: o.owner, Contact: o.contact, Out: o.out, ServerCA: o.serverCA, Now: a.now(), Formats: f.keys,
	}
	if err := o.format.sealed(ctx, a, &r); err != nil {
		return err
	}
	issued, err := a.issueAlone(ctx, r, o)
	if err == nil {
		err = f.writeConnections(place, o.out, o.serverCA)
	}
	if err != nil {
		return err
	}
	return a.showIssued(issued, o.out)
}

// issueAlone makes the certificate while nobody else writes to its folder.
func (a *app) issueAlone(ctx context.Context, r issue.Request, o issueOptions) (issue.Issued, error) {
	if !file.Exist(o.out) {
		return a.issueInto(ctx, r, o)
	}
	unlock, err := issue.Lock(o.out)
	if err != nil {
		return issue.Issued{}, err
	}
	issued, err := a.issueInto(ctx, r, o)
	return issued, errors.Join(err, unlock())
}

func (a *app) issueInto(ctx context.Context, r issue.Request, o issueOptions) (issued issue.Issued, err error) {
	if r.CA, err = a.openCA(ctx, o.ca, pki.ClientCA, o.passphraseFile); err != nil {
		return issued, err
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return issued, err
	}
	defer done()
	if o.replaces != "" {
		_, former, err := recordNamed(ctx, client, o.replaces)
		if err != nil {
			return issued, fmt.Errorf("--replaces: %w", err)
		}
		r.Replaces = former.Certificate.Fingerprint.String()
	}
	return issue.Client(ctx, registrar{client, a}, r)
}

// registrar is the cluster as issuing needs it.
type registrar struct {
	*rpc.Client
	app *app
}

// Register carries a certificate whose key was made for it: run again, the command makes
// another.
func (r registrar) Register(ctx context.Context, c armor.RegisterCertificate) error {
	_, err := r.app.submit(ctx, r.Client, c, rpc.SubmitOptions{})
	return madeAnew(err)
}

// completeIssue fills in where files come from and go to, and refuses to write over
// an earlier certificate.
func (a *app) completeIssue(o *issueOptions, name string) error {
	contexts, chosen, err := a.chosen()
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = certStore(contexts, chosen.Name, name)
	}
	if o.serverCA == "" {
		o.serverCA = chosen.ServerCAFile
	}
	if !o.overwrite && file.Exist(filepath.Join(o.out, issue.CertFile)) {
		return fault.Hinted(fmt.Errorf("%w: %s holds a certificate", armor.ErrConflict, o.out), "choose another --out, or --overwrite it")
	}
	return nil
}

// certStore is where certificates lie that were issued without --out.
func certStore(f *contextFile, context, identity string) string {
	name := strings.NewReplacer("spiffe://", "", "/", "_").Replace(identity)
	return f.in(filepath.Join(context, "certs", name))
}

// issuedView is the answer of cert issue.
type issuedView struct {
	certView
	Folder string `json:"folder"`
}

func (a *app) showIssued(i issue.Issued, dir string) error {
	v := issuedView{viewOfCert(i.State, i.Record, a.now()), dir}
	t := facts("", append(a.shownOf(v.certView, i.Record), [2]string{"files", dir})...)
	return a.show(answer{data: v, tables: []table{t}})
}

// shownOf is what people are told of a certificate that was registered just now.
func (a *app) shownOf(v certView, r armor.CertRecord) [][2]string {
	return [][2]string{
		{"identity", v.Identity}, {"environment", v.Environment}, {"owner", v.Owner},
		{"expires", v.NotAfter + " (" + relative(r.Certificate.NotAfter, a.now()) + ")"},
		{"serial", v.Serial}, {"fingerprint", v.Fingerprint},
	}
}
