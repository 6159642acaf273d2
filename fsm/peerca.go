package fsm

import (
	"bytes"
	"crypto/sha256"

	"github.com/armordb/armordb/armor"
)

// maxEndorsement bounds a signature by a CA's key, such as RSA of 8192 bits.
const maxEndorsement = 1024

// putPeerCA has a second CA sign nodes and operators. There are two at most: the one goes when the
// other has taken its place.
func (d *draft) putPeerCA(c armor.PutPeerCA) error {
	if err := firstError(
		checkCertificate(c.Certificate, true),
		checkDER("peer CA", c.DER),
	); err != nil {
		return err
	}
	switch name := c.Certificate.Fingerprint; {
	case sha256.Sum256(c.DER) != name:
		return refuse(armor.ErrInvalid, "the certificate of the peer CA does not have fingerprint %s", name)
	case d.Anchors.Has(name.String()):
		return refuse(armor.ErrInvalid, "CA %s vouches for clients, so that it must not sign nodes and operators", name.Short())
	case bytes.Equal(c.DER, d.Cluster.PeerCA), bytes.Equal(c.DER, d.Cluster.NextPeerCA):
		return nil
	case len(c.Endorsement) > maxEndorsement:
		return refuse(armor.ErrInvalid, "an endorsement of %d bytes; at most %d are taken", len(c.Endorsement), maxEndorsement)
	case len(d.Cluster.NextPeerCA) > 0:
		return refuse(armor.ErrConflict, "there are two peer CAs: retire one first")
	case d.Time.After(c.Certificate.NotAfter):
		return refuse(armor.ErrInvalid, "peer CA %s expired at %s", name.Short(), stamp(c.Certificate.NotAfter))
	}
	if r, found := d.RevokesCA(c.Certificate); found {
		return refuse(armor.ErrRevoked, "peer CA %s: %s is revoked", c.Certificate.Fingerprint.Short(), r.Selector)
	}
	d.SetPeerCAs(d.Cluster.PeerCA, c.DER, c.Endorsement)
	return nil
}

// retirePeerCA ends a peer CA, so that what it has signed is worth nothing any more.
func (d *draft) retirePeerCA(c armor.RetirePeerCA) error {
	stays, goes := d.Cluster.NextPeerCA, d.Cluster.PeerCA
	if sha256.Sum256(goes) != c.Fingerprint {
		stays, goes = goes, stays
	}
	switch {
	case len(goes) == 0 || sha256.Sum256(goes) != c.Fingerprint:
		return refuse(armor.ErrNotFound, "there is no peer CA %s", c.Fingerprint.Short())
	case len(stays) == 0:
		return refuse(armor.ErrConflict, "%s is the only peer CA: add the one that shall take its place first", c.Fingerprint.Short())
	}
	for m := range d.Members.Values() {
		if m.Certificate.ID.Issuer == c.Key {
			return refuse(armor.ErrConflict, "the certificate of node %s is of peer CA %s: renew it with the other one first", m.ID, c.Fingerprint.Short())
		}
	}
	for o := range d.Operators.Values() {
		if o.Certificate.ID.Issuer == c.Key && d.usable(o.Certificate) == nil {
			return refuse(armor.ErrConflict, "the certificate of operator %s is of peer CA %s: renew it with the other one first, or remove the operator",
				o.Name, c.Fingerprint.Short())
		}
	}
	d.SetPeerCAs(stays, nil, nil)
	return nil
}

// rescueOperator gives the cluster an operator who may admit others, where it has none left whose
// certificate is good: all have ended, and nobody has renewed one in time.
func (d *draft) rescueOperator(c armor.RescueOperator) error {
	if !c.Operator.Has(armor.CAAdmin) {
		return refuse(armor.ErrInvalid, "operator %s needs role %s, to admit others", c.Operator.Name, armor.CAAdmin)
	}
	for o := range d.Operators.Values() {
		if o.Has(armor.CAAdmin) && d.usableAt(o.Certificate, d.judged) == nil {
			return refuse(armor.ErrDenied, "operator %s, with role %s, has a certificate that is good until %s: ask them",
				o.Name, armor.CAAdmin, stamp(o.Certificate.NotAfter))
		}
	}
	return d.putOperator(c.Operator)
}

// authenticatePeerCA accepts the one kind of request that the peer CA's key may sign.
func (d *draft) authenticatePeerCA(e entry) error {
	if _, ok := e.request.Command.(armor.RescueOperator); !ok {
		return refuse(armor.ErrDenied, "%s is for an operator with role %s", e.request.Command.Kind(), e.request.Command.Needs())
	}
	err := refuse(armor.ErrInvalid, "the peer CA's key is not one of curve P-256: only armord recover brings an operator back")
	for _, der := range d.Cluster.PeerCAs() {
		if key := keyWithin(der); key != nil {
			if err = e.request.Verify(d.Cluster.ID, key); err == nil {
				return nil
			}
		}
	}
	return err
}

// keyWithin finds the one P-256 key in a certificate, as an uncompressed point. Machines of all
// builds must find the same, so that they do not leave it to a parser that changes.
func keyWithin(der []byte) []byte {
	const point = 65
	at := bytes.Index(der, p256SPKI)
	if at < 0 || bytes.Count(der, p256SPKI) != 1 || len(der) < at+len(p256SPKI)+point {
		return nil
	}
	return der[at+len(p256SPKI):][:point]
}
