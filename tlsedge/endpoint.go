package tlsedge

import (
	"crypto"
	_ "crypto/sha256" // the hashes below
	_ "crypto/sha512"
	"crypto/tls"
	"crypto/x509"
)

// endPointHashes are the hashes of tls-server-end-point (RFC 5929 §4.1) for the
// signatures of server certificates, as far as all clients agree on them. Ed25519 has none;
// older releases of libpq cannot tell that of RSA-PSS; and SHA-1 is not to be relied on.
var endPointHashes = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.SHA256WithRSA: crypto.SHA256, x509.SHA384WithRSA: crypto.SHA384, x509.SHA512WithRSA: crypto.SHA512,
	x509.ECDSAWithSHA256: crypto.SHA256, x509.ECDSAWithSHA384: crypto.SHA384, x509.ECDSAWithSHA512: crypto.SHA512,
}

// endPoint is the channel binding tls-server-end-point of a server certificate; nil
// when it has none.
func endPoint(served *tls.Certificate) []byte {
	if served == nil || len(served.Certificate) == 0 {
		return nil
	}
	leaf := served.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(served.Certificate[0]); err != nil {
			return nil // no client has got through a handshake with it
		}
	}
	hash, ok := endPointHashes[leaf.SignatureAlgorithm]
	if !ok {
		return nil
	}
	h := hash.New()
	h.Write(served.Certificate[0])
	return h.Sum(nil)
}

// EndPoint returns the channel binding tls-server-end-point (RFC 5929) of the client's
// connection, nil when the server certificate that it was shown has none.
func (s *Session) EndPoint() []byte { return endPoint(s.served) }
