package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc"
)

// issueOptions are the flags of cert issue.
type issueOptions struct {
	environment, ca, lifetime, csr, owner, contact string
	out, replaces, serverCA, passphraseFile        string
	overwrite                                      bool
}

func (a *app) certIssueCommand() *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue IDENTITY --ca DIR",
		Short: "make a client certificate, register it and write it to a folder",
		Long: `Makes a key on this machine, signs a certificate for it with the CA in --ca and
registers it in the inventory; only then are the files written: client.crt and
client.key (libpq), client.pk8 (JDBC) and, when known, ca.crt, by which the client
verifies the nodes. With --csr the key stays where the request was made.

IDENTITY is a SPIFFE id, or the name of an Identity object that names exactly one.
Without --out the files go where armorctl connect finds them.`,
		Example: `  armorctl cert issue checkout --environment production --ca ./ca/production --owner payments --out ./checkout
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
	f.StringVar(&o.replaces, "replaces", "", "`fingerprint` of the certificate that this one succeeds")
	f.StringVar(&o.serverCA, "server-ca", "", "the CA that clients verify the nodes with, a PEM `FILE` (default: the context's)")
	f.BoolVar(&o.overwrite, "overwrite", false, "replace files of an earlier certificate in --out")
	passphraseFlag(cmd, &o.passphraseFile)
	return cmd
}

func (a *app) issue(ctx context.Context, name string, o issueOptions) error {
	lifetime, err := parsePositive("--lifetime", o.lifetime)
	if err != nil {
		return err
	}
	if o.ca == "" {
		return &usageError{errors.New("cert issue needs --ca, the folder of the client CA")}
	}
	if err := a.completeIssue(&o, name); err != nil {
		return err
	}
	ca, err := a.openCA(ctx, o.ca, pki.ClientCA, o.passphraseFile)
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := a.within(ctx, patience)
	defer cancel()
	state, err := client.State(ctx, rpc.TableAnchors, rpc.TableIdentities, rpc.TableRevocations, rpc.TableInventory)
	if err != nil {
		return err
	}
	w, err := o.wish(state, ca, name)
	if err != nil {
		return err
	}
	made, err := a.sign(state, ca, w, o.csr, lifetime)
	if err != nil {
		return err
	}
	if err := a.handOut(ctx, client, w, made, o); err != nil {
		return err
	}
	return a.showIssued(state, made, o.out)
}

// handOut registers the certificate and only then writes its files: where the inventory
// is required, a certificate that is not in it must not look usable.
func (a *app) handOut(ctx context.Context, client *rpc.Client, w wish, made made, o issueOptions) error {
	register := armor.RegisterCertificate{Record: made.record, Replaces: w.replaces}
	if _, err := a.submit(ctx, client, register, rpc.SubmitOptions{}); err != nil {
		return madeAnew(fmt.Errorf("register the certificate of %s: %w", w.identity, err))
	}
	return made.write(o.out, o.serverCA)
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
	if !o.overwrite && file.Exist(filepath.Join(o.out, clientCert)) {
		return hinted(fmt.Errorf("%w: %s holds a certificate", armor.ErrConflict, o.out), "choose another --out, or --overwrite it")
	}
	return nil
}

// certStore is where certificates lie that were issued without --out.
func certStore(f *contextFile, context, identity string) string {
	name := strings.NewReplacer("spiffe://", "", "/", "_").Replace(identity)
	return f.in(filepath.Join(context, "certs", name))
}

// wish is what a certificate shall say, and who answers for it.
type wish struct {
	identity       armor.Identity
	environment    string
	owner, contact string
	replaces       armor.Digest
}

func (o issueOptions) wish(s *armor.State, ca authority, name string) (wish, error) {
	anchor, found := anchorOf(s, ca)
	if !found {
		return wish{}, hinted(fmt.Errorf("%w: the cluster does not know the CA in %s", armor.ErrNotFound, o.ca), "armorctl ca init --environment ENV --out %s registers it", o.ca)
	}
	if o.environment != "" && o.environment != anchor.Environment {
		return wish{}, fmt.Errorf("%w: the CA in %s vouches for environment %s, not %s", armor.ErrInvalid, o.ca, anchor.Environment, o.environment)
	}
	w := wish{environment: anchor.Environment, owner: o.owner, contact: o.contact}
	var err error
	if w.identity, err = resolveIdentity(s, anchor.Environment, name); err != nil {
		return wish{}, err
	}
	if object, found := s.IdentityFor(anchor.Environment, w.identity); found {
		w.owner, w.contact = cmp.Or(w.owner, object.Owner), cmp.Or(w.contact, object.Contact)
	}
	if w.owner == "" {
		return wish{}, &usageError{errors.New("somebody must answer for the certificate: say --owner, or name one in the Identity object")}
	}
	if o.replaces != "" {
		if w.replaces, err = armor.ParseDigest(o.replaces); err != nil {
			return wish{}, fmt.Errorf("--replaces: %w", err)
		}
	}
	return w, nil
}

// resolveIdentity reads a SPIFFE id, or takes the one that an Identity object names.
func resolveIdentity(s *armor.State, environment, name string) (armor.Identity, error) {
	if strings.HasPrefix(name, "spiffe://") {
		return armor.ParseIdentity(name)
	}
	object, found := s.Identities.Get(armor.ObjectKey(environment, name))
	if !found {
		return "", hinted(fmt.Errorf("%w: environment %s has no Identity object %q", armor.ErrNotFound, environment, name), "name one (armorctl identity list), or give the full id: spiffe://…")
	}
	if strings.HasSuffix(string(object.ID), "/*") {
		return "", hinted(&usageError{fmt.Errorf("identity %s stands for all of %s", name, object.ID)}, "give the full id of the one that is meant")
	}
	return armor.ParseIdentity(string(object.ID))
}

// made is a signed certificate, and its key if it was made here.
type made struct {
	record armor.CertRecord
	cert   *x509.Certificate
	chain  []*x509.Certificate // issuers that a client presents: none that is self-signed
	key    crypto.Signer
}

func (a *app) sign(s *armor.State, ca authority, w wish, csrFile string, lifetime time.Duration) (made, error) {
	var m made
	public, err := m.publicKey(csrFile)
	if err != nil {
		return m, err
	}
	m.cert, err = pki.SignLeaf(ca.cert, ca.key, public, pki.LeafConfig{
		Identity: w.identity, Client: true, Now: issueTime(s, w.identity, a.now()),
		Lifetime: lifetime - backdate, // an environment's longest lifetime counts from NotBefore
	})
	if err != nil {
		return m, err
	}
	for _, c := range append([]*x509.Certificate{ca.cert}, ca.above...) {
		if c.CheckSignatureFrom(c) != nil {
			m.chain = append(m.chain, c)
		}
	}
	m.record = armor.CertRecord{
		Certificate: pki.Facts(m.cert, pki.SPKI(ca.cert)), Environment: w.environment, Owner: w.owner, Contact: w.contact,
	}
	return m, nil
}

func (m *made) publicKey(csrFile string) (crypto.PublicKey, error) {
	if csrFile == "" {
		var err error
		if m.key, err = pki.NewKey(); err != nil {
			return nil, err
		}
		return m.key.Public(), nil
	}
	text, err := readFile(csrFile)
	if err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSRPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", csrFile, err)
	}
	return csr.PublicKey, nil
}

// backdate is how far pki lets certificates begin in the past.
const backdate = time.Minute

// issueTime is the time that a new certificate is dated from. When the identity was
// emptied a moment ago ("issued before"), the certificate must not begin before that,
// or it would be among those that are revoked.
func issueTime(s *armor.State, id armor.Identity, now time.Time) time.Time {
	for _, p := range id.Patterns() {
		r, found := s.Revocations.Get(armor.Selector{Kind: armor.SelectIdentity, Identity: p}.MarshalKey())
		if found && now.Add(-backdate).Before(r.Selector.IssuedBefore) && now.Add(armor.ClockSkew).After(r.Selector.IssuedBefore) {
			now = r.Selector.IssuedBefore.Add(backdate)
		}
	}
	return now
}

// The files of a certificate store.
const (
	clientCert  = "client.crt"
	clientKey   = "client.key"
	clientPKCS8 = "client.pk8"
	serverCA    = "ca.crt"
)

// write hands the files out: the key first, so that no certificate is without one.
func (m made) write(dir, serverCAFile string) error {
	if err := os.MkdirAll(dir, modeDir); err != nil {
		return fmt.Errorf("make the folder of the certificate: %w", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if m.key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(m.key)
		if err != nil {
			return fmt.Errorf("encode private key: %w", err)
		}
		if err := file.Replace(in(clientPKCS8), der, modeSecret); err != nil {
			return err
		}
		if err := writePair(in(clientCert), in(clientKey), m.key, append([]*x509.Certificate{m.cert}, m.chain...)...); err != nil {
			return err
		}
	} else if err := file.Replace(in(clientCert), pki.EncodeCertificatesPEM(append([]*x509.Certificate{m.cert}, m.chain...)...), modePublic); err != nil {
		return err
	}
	if serverCAFile == "" {
		return nil
	}
	certs, err := loadCertificates(serverCAFile)
	if err != nil {
		return err
	}
	return file.Replace(in(serverCA), pki.EncodeCertificatesPEM(certs...), modePublic)
}

// issuedView is the answer of cert issue.
type issuedView struct {
	certView
	Folder string `json:"folder"`
}

func (a *app) showIssued(s *armor.State, m made, dir string) error {
	v := issuedView{viewOfCert(s, m.record, a.now()), dir}
	t := facts("",
		[2]string{"identity", v.Identity}, [2]string{"environment", v.Environment}, [2]string{"owner", v.Owner},
		[2]string{"expires", v.NotAfter + " (" + relative(m.record.Certificate.NotAfter, a.now()) + ")"},
		[2]string{"serial", v.Serial}, [2]string{"fingerprint", v.Fingerprint}, [2]string{"files", dir})
	return a.show(answer{data: v, tables: []table{t}})
}
