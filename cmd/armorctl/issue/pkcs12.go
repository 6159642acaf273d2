package issue

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
)

// Alias is what the key is called in a client's PKCS #12 file: pgjdbc looks for no other name.
const Alias = "user"

// NewPassword makes a password that nobody guesses.
func NewPassword() string { return rand.Text() }

// pkcs12File holds the key and what the client presents.
func (m made) pkcs12File(r Request) ([]byte, error) {
	pfx, err := pkcs12.Modern2023.Encode(m.key, m.cert, m.chain, r.Password)
	if err != nil {
		return nil, fmt.Errorf("encode as PKCS #12: %w", err)
	}
	pfx, err = nameKey(pfx, Alias, r.Password)
	if err != nil {
		return nil, fmt.Errorf("encode as PKCS #12: %w", err)
	}
	return pfx, nil
}

// The structures of RFC 7292 section 4, as far as the key's name and the file's MAC are in them.
type (
	pfxFile struct {
		Version int
		Safe    contentInfo
		MAC     macData
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit"`
	}
	macData struct {
		MAC    digestInfo
		Salt   []byte
		Rounds int `asn1:"optional,default:1"`
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes []attribute   `asn1:"set,optional"`
	}
	attribute struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
)

var (
	idData         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	idShroudedKey  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	idFriendlyName = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
)

// nameKey gives the key in a file of go-pkcs12, which names none, a friendly name (RFC 2985
// section 5.5.1), and puts the MAC right.
func nameKey(der []byte, name, password string) ([]byte, error) {
	var pfx pfxFile
	if err := unmarshalAll(der, &pfx); err != nil {
		return nil, err
	}
	safe, err := octets(pfx.Safe.Content)
	if err != nil {
		return nil, err
	}
	var parts []contentInfo
	if err := unmarshalAll(safe, &parts); err != nil {
		return nil, err
	}
	named := false
	for i, part := range parts {
		if !part.Type.Equal(idData) {
			continue // the certificates, which are encrypted
		}
		if parts[i].Content, err = nameKeyIn(part.Content, name); err != nil {
			return nil, err
		}
		named = true
	}
	if !named {
		return nil, fmt.Errorf("%w: the file has no part with the key", armor.ErrInvalid)
	}
	if safe, err = asn1.Marshal(parts); err != nil {
		return nil, err
	}
	if pfx.Safe.Content, err = explicitOctets(safe); err != nil {
		return nil, err
	}
	pfx.MAC.MAC.Digest = macOf(safe, pfx.MAC.Salt, pfx.MAC.Rounds, password)
	return asn1.Marshal(pfx)
}

func nameKeyIn(content asn1.RawValue, name string) (asn1.RawValue, error) {
	inner, err := octets(content)
	if err != nil {
		return content, err
	}
	var bags []safeBag
	if err := unmarshalAll(inner, &bags); err != nil {
		return content, err
	}
	value := asn1.RawValue{Tag: asn1.TagBMPString, Bytes: bmp(name)}
	for i, bag := range bags {
		if bag.ID.Equal(idShroudedKey) {
			bags[i].Attributes = append(bag.Attributes, attribute{idFriendlyName, []asn1.RawValue{value}})
		}
	}
	if inner, err = asn1.Marshal(bags); err != nil {
		return content, err
	}
	return explicitOctets(inner)
}

// macOf is HMAC with SHA-256 under a key that the password gives (RFC 7292 appendix B.2). The key
// is as long as the hash, so that the first block of the derivation is all of it.
func macOf(message, salt []byte, rounds int, password string) []byte {
	block := slices.Repeat([]byte{3}, sha256.BlockSize) // 3: the key is for a MAC
	block = append(block, fill(salt)...)
	block = append(block, fill(append(bmp(password), 0, 0))...)
	key := sha256.Sum256(block)
	for range rounds - 1 {
		key = sha256.Sum256(key[:])
	}
	h := hmac.New(sha256.New, key[:])
	h.Write(message)
	return h.Sum(nil)
}

// fill repeats a text until it fills whole blocks of the hash.
func fill(text []byte) []byte {
	size := (len(text) + sha256.BlockSize - 1) / sha256.BlockSize * sha256.BlockSize
	return slices.Repeat(text, size/len(text)+1)[:size]
}

// bmp is a text in UTF-16, the higher byte first.
func bmp(s string) (encoded []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		encoded = binary.BigEndian.AppendUint16(encoded, unit)
	}
	return encoded
}

// octets reads the octet string in an explicit tag.
func octets(v asn1.RawValue) (content []byte, err error) {
	return content, unmarshalAll(v.Bytes, &content)
}

func explicitOctets(content []byte) (v asn1.RawValue, err error) {
	wrapped, err := asn1.Marshal(content)
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: wrapped}, err
}

func unmarshalAll(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes behind the end", armor.ErrInvalid, len(rest))
	}
	return err
}
