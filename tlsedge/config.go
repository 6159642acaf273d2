package tlsedge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// alpn is PostgreSQL's protocol id (IANA), which direct TLS must offer: without it
// a browser's TLS, or anybody's, could be led here.
const alpn = "postgresql"

// terms is what a handshake needs of one revision of the trust state. It is
// immutable.
type terms struct {
	revision uint64
	verifier *pki.Verifier
	tls      *tls.Config
	faults   error // of anchors that were left out
}

// termsNow returns the terms of the state in force, made once for each revision.
func (e *Edge) termsNow() *terms {
	s, _ := e.cfg.Trust.Current()
	d, made := e.termsOf(s)
	if made && d.faults != nil {
		e.cfg.Logger.Warn("trust anchors left out", armor.KeyRevision, s.Revision, armor.KeyErr, d.faults)
	}
	return d
}

func (e *Edge) termsOf(s *armor.State) (t *terms, made bool) {
	e.termsMu.Lock()
	defer e.termsMu.Unlock()
	if e.terms == nil || e.terms.revision != s.Revision {
		e.terms, made = e.newTerms(s), true
	}
	return e.terms, made
}

func (e *Edge) newTerms(s *armor.State) *terms {
	var anchors []armor.TrustAnchor
	for a := range s.Anchors.Values() {
		if e.serves(a.Environment) {
			anchors = append(anchors, a)
		}
	}
	verifier, faults := pki.NewVerifier(anchors)
	return &terms{revision: s.Revision, verifier: verifier, faults: faults, tls: tlsConfig(verifier.Hints())}
}

func tlsConfig(hints *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             tls.RequireAnyClientCert, // chains are checked by proof.verify
		ClientCAs:              hints,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true, // a ticket would outlive a revocation
	}
}

// proof collects what one handshake shows. Nothing else sees it before possession
// is proven: verify runs earlier, on certificates that anyone may show.
type proof struct {
	edge   *Edge
	terms  *terms
	direct bool
	chains [][]armor.Certificate
	shown  []*x509.Certificate // by a client whose certificates lead to no anchor
	served *tls.Certificate    // what the client was shown
}

// config is the terms' TLS configuration, with this proof's certificate and checks.
func (p *proof) config() *tls.Config {
	c := p.terms.tls.Clone()
	c.VerifyConnection = p.verify
	c.GetCertificate = p.certificate
	if p.direct {
		c.GetConfigForClient = requireALPN
	}
	return c
}

func (p *proof) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	served, err := p.edge.cfg.Certificate()
	p.served = served
	return served, err
}

func (p *proof) verify(cs tls.ConnectionState) error {
	chains, err := p.terms.verifier.Verify(cs.PeerCertificates, p.edge.cfg.Lease.Now())
	if err != nil {
		p.shown = cs.PeerCertificates
	}
	p.chains = chains
	return err
}

var errNoALPN = errors.New("direct TLS without ALPN protocol \"" + alpn + "\"")

func requireALPN(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !slices.Contains(hello.SupportedProtos, alpn) {
		return nil, errNoALPN
	}
	return nil, nil // go on with the present one
}
