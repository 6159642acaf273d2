package issue

import (
	"bytes"
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

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/rpc"
)

// Request is what a client's certificate shall be.
type Request struct {
	CA          CA
	CADir       string // where it was opened
	Identity    string // a SPIFFE id, or the name of an Identity object
	Environment string // empty: the CA's
	Lifetime    time.Duration
	CSRFile     string // signs this request; empty: makes a key
	Owner       string // empty: the Identity object's, as Contact
	Contact     string
	Replaces    string // fingerprint of its predecessor, or empty
	Out         string // folder for the files
	Formats     []Format
	// Password is of the PKCS #12 file, if there is to be one. KeepPassword writes it beside that.
	Password     string
	KeepPassword bool
	ServerCA     string // file with the CA that clients verify nodes with, or empty
	Now          time.Time
}

// Cluster is what issuing needs of it.
type Cluster interface {
	// Ask returns the tables that are named, as they are now, as far as they answer a
	// question.
	Ask(ctx context.Context, q armor.Question, tables ...rpc.Table) (s *armor.State, next string, err error)
	// Register returns once the certificate is in the inventory.
	Register(ctx context.Context, c armor.RegisterCertificate) error
}

// Issued is a client's certificate that was registered and written.
type Issued struct {
	State  *armor.State // that it was made by
	Record armor.CertRecord
}

// Client makes a client's certificate, registers it, and only then writes its files: where the
// inventory is required, a certificate that is not in it must not look usable.
func Client(ctx context.Context, c Cluster, r Request) (Issued, error) {
	about := armor.Question{Identities: []string{r.Identity}}
	state, _, err := c.Ask(ctx, about, armor.Anchors, armor.Identities, armor.Revoked, armor.Inventory)
	if err != nil {
		return Issued{}, err
	}
	w, err := r.wish(state)
	if err != nil {
		return Issued{}, err
	}
	made, err := r.sign(state, w)
	if err != nil {
		return Issued{}, err
	}
	files, err := made.files(r)
	if err != nil {
		return Issued{}, err
	}
	if err := c.Register(ctx, armor.RegisterCertificate{Record: made.record, Replaces: w.replaces}); err != nil {
		return Issued{}, fmt.Errorf("register the certificate of %s: %w", w.identity, err)
	}
	return Issued{state, made.record}, made.write(r.Out, files)
}

// wish is what a certificate shall say, and who answers for it.
type wish struct {
	identity       armor.Identity
	environment    string
	owner, contact string
	replaces       armor.Digest
}

func (r Request) wish(s *armor.State) (wish, error) {
	anchor, found := r.CA.anchor(s)
	if !found {
		return wish{}, fault.Hinted(fmt.Errorf("%w: the cluster does not know the CA in %s", armor.ErrNotFound, r.CADir),
			"armorctl ca init --environment ENV --out %s registers it", r.CADir)
	}
	if r.Environment != "" && r.Environment != anchor.Environment {
		return wish{}, fmt.Errorf("%w: the CA in %s vouches for environment %s, not %s", armor.ErrInvalid, r.CADir, anchor.Environment,
			r.Environment)
	}
	w := wish{environment: anchor.Environment, owner: r.Owner, contact: r.Contact}
	var err error
	if w.identity, err = ResolveIdentity(s, anchor.Environment, r.Identity); err != nil {
		return wish{}, err
	}
	if err := Answers(s, anchor.Environment, w.identity, &w.owner, &w.contact); err != nil {
		return wish{}, err
	}
	if r.Replaces != "" {
		if w.replaces, err = armor.ParseDigest(r.Replaces); err != nil {
			return wish{}, fmt.Errorf("--replaces: %w", err)
		}
	}
	return w, nil
}

// Answers fills in who answers for a certificate, where nothing was said, from the Identity
// object; nobody is a *fault.Usage.
func Answers(s *armor.State, environment string, id armor.Identity, owner, contact *string) error {
	if object, found := s.IdentityFor(environment, id); found {
		*owner, *contact = cmp.Or(*owner, object.Owner), cmp.Or(*contact, object.Contact)
	}
	if *owner == "" {
		return &fault.Usage{Err: errors.New("somebody must answer for the certificate: say --owner, or name one in the Identity object")}
	}
	return nil
}

// ResolveIdentity reads a SPIFFE id, or takes the one that an Identity object names.
func ResolveIdentity(s *armor.State, environment, name string) (armor.Identity, error) {
	if strings.HasPrefix(name, "spiffe://") {
		return armor.ParseIdentity(name)
	}
	object, found := s.Identities.Get(armor.ObjectKey(environment, name))
	if !found {
		return "", fault.Hinted(fmt.Errorf("%w: environment %s has no Identity object %q", armor.ErrNotFound, environment, name),
			"name one (armorctl identity list), or give the full id: spiffe://…")
	}
	if strings.HasSuffix(string(object.ID), "/*") {
		return "", fault.Hinted(&fault.Usage{Err: fmt.Errorf("identity %s stands for all of %s", name, object.ID)},
			"give the full id of the one that is meant")
	}
	return armor.ParseIdentity(string(object.ID))
}

// made is a signed certificate, and its key if it was made here.
type made struct {
	record armor.CertRecord
	cert   *x509.Certificate
	chain  []*x509.Certificate // issuers that a client presents: none that is self-signed
	key    crypto.Signer
	server []*x509.Certificate // who vouches for the nodes, if that is known
}

func (r Request) sign(s *armor.State, w wish) (made, error) {
	var m made
	var public crypto.PublicKey
	var err error
	public, m.key, err = PublicKey(r.CSRFile)
	if err != nil {
		return m, err
	}
	m.cert, err = pki.SignLeaf(r.CA.Cert, r.CA.key, public, pki.LeafConfig{
		Identity: w.identity, Client: true, Now: DatedFrom(s, w.identity, r.Now),
		Lifetime: r.Lifetime - backdate, // an environment's longest lifetime counts from NotBefore
	})
	if err != nil {
		return m, err
	}
	for _, c := range append([]*x509.Certificate{r.CA.Cert}, r.CA.above...) {
		if c.CheckSignatureFrom(c) != nil {
			m.chain = append(m.chain, c)
		}
	}
	if r.ServerCA != "" {
		if m.server, err = Certificates(r.ServerCA); err != nil {
			return m, err
		}
	}
	m.record = armor.CertRecord{
		Certificate: pki.Facts(m.cert, pki.SPKI(r.CA.Cert)), Environment: w.environment, Owner: w.owner, Contact: w.contact,
	}
	return m, nil
}

// PublicKey returns the key that a certificate is made for: that of a request, or a new one,
// whose private half comes with it.
func PublicKey(csrFile string) (crypto.PublicKey, crypto.Signer, error) {
	if csrFile == "" {
		key, err := pki.NewKey()
		if err != nil {
			return nil, nil, err
		}
		return key.Public(), key, nil
	}
	text, err := ReadFile(csrFile)
	if err != nil {
		return nil, nil, err
	}
	csr, err := pki.ParseCSRPEM(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", csrFile, err)
	}
	return csr.PublicKey, nil, nil
}

// backdate is how far pki lets certificates begin in the past.
const backdate = time.Minute

// DatedFrom is the time that a new certificate is dated from. When the identity was
// emptied a moment ago ("issued before"), the certificate must not begin before that,
// or it would be among those that are revoked.
func DatedFrom(s *armor.State, id armor.Identity, now time.Time) time.Time {
	for _, p := range id.Patterns() {
		r, found := s.Revocations.Get(armor.Selector{Kind: armor.SelectIdentity, Identity: p}.SelectorKey())
		if found && now.Add(-backdate).Before(r.Selector.IssuedBefore) && now.Add(armor.ClockSkew).After(r.Selector.IssuedBefore) {
			now = r.Selector.IssuedBefore.Add(backdate)
		}
	}
	return now
}

// files are what is to be written, the key before the certificate, so that no certificate is
// without one.
func (m made) files(r Request) (files []written, err error) {
	if m.key != nil {
		if files, err = m.encode(r); err != nil {
			return nil, err
		}
	}
	return append(files, written{CertFile, pki.EncodeCertificatesPEM(m.leafAndAbove()...), Public}), nil
}

// write hands the files out.
func (m made) write(dir string, files []written) error {
	if err := os.MkdirAll(dir, Folder); err != nil {
		return fmt.Errorf("make the folder of the certificate: %w", err)
	}
	var err error
	if m.key != nil {
		err = handOut(dir, files)
	} else { // a key that is elsewhere, or that somebody has put there, stays where it is
		err = file.Replace(filepath.Join(dir, CertFile), files[0].content, files[0].mode)
	}
	if err != nil || len(m.server) == 0 {
		return err
	}
	path, content := filepath.Join(dir, ServerCAFile), pki.EncodeCertificatesPEM(m.server...)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil // it keeps its owner
	}
	return file.Replace(path, content, Public)
}
