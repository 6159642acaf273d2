package leak

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
)

// Key is a private key that was found.
type Key struct {
	Line int    // from 1 on
	Form string // how it is written down
	// Digest is the SHA-256 of the public key, and Algorithm what it is for; empty when the key is
	// under a password that we do not know, or in a form that we do not read.
	Digest    armor.Digest
	Algorithm string
}

// Unread reports whether whose key it is cannot be said.
func (k Key) Unread() bool { return k.Digest.IsZero() }

const (
	// maxKey bounds the DER of one key: RSA of 16,384 bits takes less than ten thousand bytes.
	maxKey = 16 << 10
	// maxPKCS12 bounds a PKCS #12 file: a key and some certificates.
	maxPKCS12 = 256 << 10
	// maxRounds bounds how often a password is hashed to open a file.
	maxRounds = 1_000_000
	// maxNesting bounds how deep DER is looked into; a PKCS #12 file goes down some twenty levels.
	maxNesting = 32
)

// usual are the passwords under which PKCS #12 files lie about.
var usual = []string{"", "changeit", "changeme", "password", "secret"}

// ofDER finds the key in one DER value that fills der.
func ofDER(der []byte) (Key, bool) {
	if len(der) <= maxKey {
		if k, ok := plainKey(der); ok {
			return k, true
		}
		if isEncryptedKey(der) {
			return Key{Form: "PKCS #8 key that needs its password"}, true
		}
	}
	if len(der) <= maxPKCS12 && isPKCS12(der) {
		return ofPKCS12(der)
	}
	return Key{}, false
}

func plainKey(der []byte) (Key, bool) {
	for _, form := range []struct {
		name  string
		parse func([]byte) (any, error)
	}{
		{"PKCS #8", x509.ParsePKCS8PrivateKey},
		{"SEC 1", func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) }},
		{"PKCS #1", func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) }},
	} {
		if key, err := form.parse(der); err == nil {
			return describe(form.name, key)
		}
	}
	return Key{}, false
}

func describe(form string, key any) (Key, bool) {
	private, ok := key.(interface{ Public() crypto.PublicKey })
	if !ok {
		return Key{}, false
	}
	public := private.Public()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, false
	}
	return Key{Form: form, Digest: sha256.Sum256(spki), Algorithm: algorithmOf(public)}, true
}

func algorithmOf(public crypto.PublicKey) string {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + p.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", p.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	case *ecdh.PublicKey:
		return "X25519"
	}
	return fmt.Sprintf("%T", public)
}

// pbes2 and the older schemes are all below this arc (RFC 8018 appendix A), or below the one of
// PKCS #12 (RFC 7292 appendix C).
var (
	pkcs5Arc  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5}
	pkcs12Arc = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1}
	dataType  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// isEncryptedKey recognises EncryptedPrivateKeyInfo (RFC 5958 section 3).
func isEncryptedKey(der []byte) bool {
	var sealed struct {
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}
	rest, err := asn1.Unmarshal(der, &sealed)
	return err == nil && len(rest) == 0 && (below(sealed.Algorithm.ID, pkcs5Arc) || below(sealed.Algorithm.ID, pkcs12Arc))
}

func below(id, arc asn1.ObjectIdentifier) bool { return len(id) > len(arc) && id[:len(arc)].Equal(arc) }

// isPKCS12 recognises PFX (RFC 7292 section 4).
func isPKCS12(der []byte) bool {
	var pfx struct {
		Version int
		Safe    struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue `asn1:"optional"`
		}
		MAC asn1.RawValue `asn1:"optional"`
	}
	rest, err := asn1.Unmarshal(der, &pfx)
	return err == nil && len(rest) == 0 && pfx.Version == 3 && pfx.Safe.Type.Equal(dataType)
}

// ofPKCS12 opens a file by the usual passwords. One that has only certificates is no find.
func ofPKCS12(der []byte) (Key, bool) {
	sealed := Key{Form: "PKCS #12 file that needs its password"}
	if asksForMuch(der, maxNesting) {
		return sealed, true
	}
	for _, password := range usual {
		key, _, _, err := pkcs12.DecodeChain(der, password)
		if err == nil {
			return describe("PKCS #12", key)
		}
		if errors.Is(err, pkcs12.ErrIncorrectPassword) {
			continue
		}
		if _, err := pkcs12.DecodeTrustStore(der, password); err == nil {
			return Key{}, false
		}
	}
	return sealed, true
}

// asksForMuch reports whether some number in DER is larger than we hash rounds: a file of a few
// bytes could keep us busy for hours. Numbers of more than eight bytes are no rounds. What is below
// an encryption is not seen: a file made for it can still take its time, until somebody interrupts the scan.
func asksForMuch(der []byte, nesting int) bool {
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return false
		}
		der = rest
		switch {
		case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger && len(v.Bytes) <= 8:
			var n int64
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err == nil && n > maxRounds {
				return true
			}
		case v.IsCompound || v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString:
			if nesting == 0 || asksForMuch(v.Bytes, nesting-1) {
				return true
			}
		}
	}
	return false
}
