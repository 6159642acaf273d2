package issue

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// ImportCAs reads the CAs of a file whose keys are elsewhere: of a PEM file the first one, with the
// CAs above it behind it, or with all each of them; or those of a SPIFFE bundle (JSON). svid
// says that their certificates may be for servers, too.
func ImportCAs(path string, all bool) (cas []CA, svid bool, err error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, false, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		certs, err := parseBundle(text)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", path, err)
		}
		return apart(certs), true, nil
	}
	certs, err := Certificates(path)
	if err != nil {
		return nil, false, err
	}
	if all {
		return apart(certs), false, nil
	}
	for i, above := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(above); err != nil {
			return nil, false, fault.Hinted(
				fmt.Errorf("%w: %s: certificate %d (%q) has not signed the one before it (%q)",
					armor.ErrInvalid, path, i+2, above.Subject.CommonName, certs[i].Subject.CommonName),
				"--all trusts each of them by itself")
		}
	}
	return []CA{{Cert: certs[0], above: certs[1:]}}, false, nil
}

// apart makes a CA of each certificate.
func apart(certs []*x509.Certificate) []CA {
	cas := make([]CA, len(certs))
	for i, cert := range certs {
		cas[i] = CA{Cert: cert, above: certs}
	}
	return cas
}

// maxBundle bounds the CAs of one trust domain.
const maxBundle = 64

// parseBundle reads a SPIFFE bundle (SPIFFE Trust Domain and Bundle section 4): a JWK Set
// (RFC 7517 section 5) whose keys of use x509-svid carry one CA certificate each.
func parseBundle(text []byte) ([]*x509.Certificate, error) {
	var set struct {
		Keys []struct {
			Use string   `json:"use"`
			X5C [][]byte `json:"x5c"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("%w: neither PEM nor a SPIFFE bundle: %w", armor.ErrInvalid, err)
	}
	var certs []*x509.Certificate
	for i, key := range set.Keys {
		switch {
		case key.Use != "x509-svid":
			continue
		case len(key.X5C) != 1:
			return nil, fmt.Errorf("%w: key %d of the bundle has %d certificates instead of one", armor.ErrInvalid, i+1, len(key.X5C))
		case len(certs) == maxBundle:
			return nil, fmt.Errorf("%w: the bundle holds more than %d CAs", armor.ErrInvalid, maxBundle)
		}
		cert, err := pki.ParseAnchor(key.X5C[0])
		if err != nil {
			return nil, fmt.Errorf("key %d of the bundle: %w", i+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: the bundle holds no key of use x509-svid", armor.ErrInvalid)
	}
	return certs, nil
}
