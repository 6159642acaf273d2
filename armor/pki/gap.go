package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Gap says why no chain leads from what a client has shown to a trust anchor, and what to do, for
// operators: nobody has proved to hold the keys, and all names are the sender's. It is "" when
// the reason is another than a certificate that is missing, of another key, or over.
func Gap(presented []*x509.Certificate, anchors []*x509.Certificate, now time.Time) string {
	if len(presented) == 0 || len(presented) > MaxChain {
		return ""
	}
	top := presented[0]
	for range presented {
		i := slices.IndexFunc(presented, func(c *x509.Certificate) bool { return c != top && signs(c, top) })
		if i < 0 {
			break
		}
		if top = presented[i]; now.After(top.NotAfter) {
			return fmt.Sprintf("the CA %s ended at %s: issue the client a certificate of another", name(top.RawSubject), top.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return gapAbove(top, anchors)
}

func gapAbove(top *x509.Certificate, anchors []*x509.Certificate) string {
	issuer := name(top.RawIssuer)
	for _, a := range anchors {
		switch {
		case signs(a, top):
			return ""
		case bytes.Equal(a.RawSubject, top.RawIssuer):
			return fmt.Sprintf("a trust anchor is called %s, but its key has not signed %s: the CA has another key now, or this is a forgery",
				issuer, name(top.RawSubject))
		}
	}
	if bytes.Equal(top.RawIssuer, top.RawSubject) {
		return fmt.Sprintf("the CA %s is no trust anchor: armorctl ca import registers it", issuer)
	}
	return fmt.Sprintf("the CA %s was not sent and is no trust anchor: if it is an intermediate, put its certificate behind the client's in the client's file",
		issuer)
}

func signs(issuer, cert *x509.Certificate) bool {
	return bytes.Equal(issuer.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(issuer) == nil
}

// maxName bounds what a stranger can write into our log.
const maxName = 200

// name is a distinguished name as people read it (RFC 2253).
func name(raw []byte) string {
	var rdn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &rdn); err != nil || len(rest) > 0 {
		return "with a name that cannot be read"
	}
	return strconv.Quote(Clip(rdn.String()))
}

// Clip bounds a name that a stranger has chosen.
func Clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	return name[:maxName] + "…"
}
