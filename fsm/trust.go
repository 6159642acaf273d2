package fsm

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/armordb/armordb/armor"
)

// putEnvironment adds or replaces an environment; what is left open gets its default.
func (d *draft) putEnvironment(e armor.Environment) error {
	e = e.WithDefaults()
	if err := e.Check(); err != nil {
		return describe(err, "%s", e.Ref())
	}
	d.configure(change(d, armor.Environments, e))
	return nil
}

// configure records that the configuration changed with this revision.
func (d *draft) configure(changed bool) {
	if changed {
		d.configured = d.Revision
	}
}

// same compares by canonical bytes: slices are compared by what they hold, and nil and
// empty are one.
func same(a, b any) bool {
	return bytes.Equal(armor.Canonical(a), armor.Canonical(b))
}

// putAnchor adds a trust anchor. An anchor never moves: whoever could rebind one would
// move every certificate below it into another environment.
func (d *draft) putAnchor(a armor.TrustAnchor) error {
	if err := d.checkAnchor(a); err != nil {
		return err
	}
	key := a.Certificate.Fingerprint.String()
	if old, had := d.Anchors.Get(key); had {
		a.Retired, a.Distrusted = old.Retired, old.Distrusted // it is there, and stays as it is
		if !same(old, a) {
			return refuse(armor.ErrConflict,
				"trust anchor %s is bound to environment %s as %s with prefix %s, and stays so",
				a.Certificate.Fingerprint.Short(), old.Environment, old.Name, old.Prefix)
		}
		return nil
	}
	for _, other := range d.Anchors.All() {
		if other.Certificate.Key == a.Certificate.Key && other.Environment != a.Environment {
			return refuse(armor.ErrConflict, "the key of trust anchor %s is bound to environment %s", a.Name, other.Environment)
		}
		if other.Environment == a.Environment && other.Name == a.Name {
			return refuse(armor.ErrConflict,
				"environment %s has a trust anchor %s with another certificate: choose another name", a.Environment, a.Name)
		}
	}
	put(d, armor.Anchors, a)
	return nil
}

func (d *draft) checkAnchor(a armor.TrustAnchor) error {
	_, badPrefix := armor.ParsePattern(string(a.Prefix))
	judged := a.Certificate
	if d.level >= 7 && judged.ID.Issuer.IsZero() { // an intermediate, whose issuer nobody has shown
		judged.ID.Issuer = judged.Key
	}
	if a.Retired || a.Distrusted {
		return refuse(armor.ErrInvalid, "trust anchor %s: one that is to be used by nobody need not be registered", a.Name)
	}
	if err := firstError(
		armor.CheckName("trust anchor", a.Name),
		d.environmentExists(a.Environment),
		describe(badPrefix, "prefix of trust anchor %s", a.Name),
		checkCertificate(judged, true),
		checkDER("trust anchor "+a.Name, a.DER),
	); err != nil {
		return err
	}
	if sha256.Sum256(a.DER) != a.Certificate.Fingerprint {
		return refuse(armor.ErrInvalid, "trust anchor %s: the certificate does not have fingerprint %s", a.Name, a.Certificate.Fingerprint)
	}
	isOwn := func(der []byte) bool { return sha256.Sum256(der) == a.Certificate.Fingerprint }
	if slices.ContainsFunc(d.Cluster.PeerCAs(), isOwn) {
		return refuse(armor.ErrInvalid, "trust anchor %s is the CA of nodes and operators, which must not vouch for clients", a.Name)
	}
	if r, found := d.RevokesCA(a.Certificate); found {
		return refuse(armor.ErrRevoked, "trust anchor %s: %s is revoked", a.Name, r.Selector)
	}
	return nil
}

// retireAnchor marks an anchor that nobody is to get a certificate of any more, or takes the mark
// off again. It ends no session: to revoke the anchor does.
func (d *draft) retireAnchor(c armor.RetireAnchor) error {
	a, found := d.Anchors.Get(c.Anchor.String())
	if !found {
		return refuse(armor.ErrNotFound, "there is no trust anchor %s", c.Anchor.Short())
	}
	if r, found := d.Rotations.Get(a.Environment); found && r.Active() && (c.Anchor == r.Old || c.Anchor == r.New) {
		return refuse(armor.ErrConflict, "trust anchor %s is in a rotation of environment %s, which says who issues: "+
			"armorctl ca rotate status --environment %s", a.Name, a.Environment, a.Environment)
	}
	if a.Retired = !c.Undo; a.Retired {
		put(d, armor.Anchors, a)
		return nil
	}
	if r, found := d.RevokesCA(a.Certificate); found {
		return refuse(armor.ErrRevoked, "trust anchor %s: %s is revoked, which is for good", a.Name, r.Selector)
	}
	put(d, armor.Anchors, a)
	return nil
}

func (d *draft) environmentExists(name string) error {
	if !d.Environments.Has(name) {
		return refuse(armor.ErrNotFound, "there is no environment %q", name)
	}
	return nil
}

// registerCertificate takes a certificate into the inventory. Who issued it and when
// is what the log says, not what the request claims.
func (d *draft) registerCertificate(c armor.RegisterCertificate) error {
	record := c.Record
	record.IssuedAt, record.IssuedBy, record.ReplacedBy = d.Time, d.by, armor.Digest{}
	key := record.Certificate.Fingerprint.String()
	if old, had := d.Inventory.Get(key); had {
		record.IssuedAt, record.IssuedBy, record.ReplacedBy = old.IssuedAt, old.IssuedBy, old.ReplacedBy
		if !same(old, record) {
			return refuse(armor.ErrConflict,
				"certificate %s is registered in environment %s for %s already", record.Certificate.ID.Serial, old.Environment, old.Owner)
		}
		return d.replace(c.Replaces, record)
	}
	if err := d.checkRecord(record); err != nil {
		return err
	}
	if err := d.bindKey(record); err != nil {
		return err
	}
	put(d, armor.Inventory, record)
	return d.replace(c.Replaces, record)
}

func (d *draft) checkRecord(r armor.CertRecord) error {
	if err := firstError(
		checkCertificate(r.Certificate, false),
		d.environmentExists(r.Environment),
		armor.CheckText("owner", r.Owner, armor.MaxText, true),
		armor.CheckText("contact", r.Contact, armor.MaxText, false),
		d.vouched(r),
	); err != nil {
		return err
	}
	env, _ := d.Environments.Get(r.Environment)
	if life := r.Certificate.NotAfter.Sub(r.Certificate.NotBefore); env.MaxLeafLifetime > 0 && life > env.MaxLeafLifetime {
		return refuse(armor.ErrInvalid,
			"certificate %s lives %s, and environment %s allows %s", r.Certificate.ID.Serial, life, env.Name, env.MaxLeafLifetime)
	}
	if revoked, found := d.Revokes(r.Certificate, []armor.Certificate{{Key: r.Certificate.ID.Issuer}}); found {
		return refuse(armor.ErrRevoked, "certificate %s: %s is revoked", r.Certificate.ID.Serial, revoked.Selector)
	}
	return nil
}

// vouched checks that some anchor of the environment could vouch for the identity: the issuer, if
// that is one. Of a retired one nothing new is taken in. Entries of every level mean that, for no
// build knows of a retired anchor without knowing this.
func (d *draft) vouched(r armor.CertRecord) error {
	var may, issuer []armor.TrustAnchor
	for _, a := range d.Anchors.All() {
		if a.Environment == r.Environment && a.Prefix.Matches(r.Certificate.Identity) {
			may = append(may, a)
		}
	}
	for _, a := range may {
		if a.Certificate.Key == r.Certificate.ID.Issuer {
			issuer = append(issuer, a)
		}
	}
	if len(issuer) > 0 {
		may = issuer
	}
	if err := d.issues(r.Environment, issuer); err != nil {
		return err
	}
	switch {
	case len(may) == 0:
		return refuse(armor.ErrInvalid, "no trust anchor of environment %s may vouch for identity %q", r.Environment, r.Certificate.Identity)
	case !slices.ContainsFunc(may, func(a armor.TrustAnchor) bool { return !a.Retired }):
		return refuse(armor.ErrConflict, "trust anchor %s is retired: issue from another, or armorctl ca retire %s --undo", may[0].Name, may[0].Name)
	}
	return nil
}

// bindKey binds the certificate's key to the environment. The first binding stays.
func (d *draft) bindKey(r armor.CertRecord) error {
	key := r.Certificate.Key.String()
	if bound, had := d.KeyEnvironments.Get(key); had && bound != r.Environment {
		return refuse(armor.ErrConflict, "the key of certificate %s belongs to environment %s: make a new key", r.Certificate.ID.Serial, bound)
	}
	return nil
}

func (d *draft) replace(fingerprint armor.Digest, by armor.CertRecord) error {
	if fingerprint.IsZero() {
		return nil
	}
	old, found := d.Inventory.Get(fingerprint.String())
	successor := by.Certificate.Fingerprint
	switch {
	case !found || old.Environment != by.Environment:
		return refuse(armor.ErrNotFound, "environment %s has no certificate with fingerprint %s to replace", by.Environment, fingerprint)
	case fingerprint == successor:
		return refuse(armor.ErrInvalid, "certificate %s cannot replace itself", by.Certificate.ID.Serial)
	case !old.ReplacedBy.IsZero() && old.ReplacedBy != successor:
		return refuse(armor.ErrConflict, "certificate %s was replaced by %s already", old.Certificate.ID.Serial, old.ReplacedBy)
	}
	old.ReplacedBy = successor
	put(d, armor.Inventory, old)
	return nil
}
