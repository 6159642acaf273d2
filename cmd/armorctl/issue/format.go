package issue

import (
	"crypto/x509"
	"fmt"
	"path/filepath"

	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
)

// Format is a way to write down a certificate's key. The certificate itself always goes to
// client.crt.
type Format string

// The formats, and who reads them.
const (
	PEM   Format = "pem" // libpq and most drivers
	PKCS8 Format = "pk8" // pgjdbc: the key alone, DER
)

// The files of a client's folder.
const (
	CertFile     = "client.crt"
	KeyFile      = "client.key"
	PKCS8File    = "client.pk8"
	ServerCAFile = "ca.crt"
)

// encodings say where each format is written and how, in the order in which they are written.
var encodings = []struct {
	format Format
	file   string
	encode func(made) ([]byte, error)
}{
	{PKCS8, PKCS8File, made.pkcs8},
	{PEM, KeyFile, made.pem},
}

// paired are the files that belong to one key.
func paired() []string {
	all := []string{CertFile}
	for _, e := range encodings {
		all = append(all, e.file)
	}
	return all
}

// FormatsOf are those that a client's folder has.
func FormatsOf(dir string) (formats []Format) {
	for _, e := range encodings {
		if file.Exist(filepath.Join(dir, e.file)) {
			formats = append(formats, e.format)
		}
	}
	return formats
}

func (m made) pem() ([]byte, error) { return pki.EncodePrivateKeyPEM(m.key) }

func (m made) pkcs8() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return der, nil
}

// leafAndAbove is what a client presents, its own certificate first.
func (m made) leafAndAbove() []*x509.Certificate {
	return append([]*x509.Certificate{m.cert}, m.chain...)
}
