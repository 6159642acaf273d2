package issue

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// Format is a way to write down a certificate's key. The certificate itself always goes to
// client.crt.
type Format string

// The formats, and who reads them.
const (
	PEM        Format = "pem" // libpq and most drivers
	PKCS8      Format = "pk8" // pgjdbc: the key alone, DER
	PKCS12     Format = "p12" // pgjdbc and other Java: key and certificate in one file, under a password
	Kubernetes Format = "k8s" // kubectl: a Secret of type kubernetes.io/tls
)

// Formats are all of them.
var Formats = []Format{PEM, PKCS8, PKCS12, Kubernetes}

// The files of a client's folder.
const (
	CertFile     = "client.crt"
	KeyFile      = "client.key"
	PKCS8File    = "client.pk8"
	PKCS12File   = "client.p12"
	PasswordFile = "client.p12.password" // made here, of PKCS12File
	SecretFile   = "client-secret.yaml"
	ServerCAFile = "ca.crt"
)

// encodings say where each format is written and how, in the order in which they are written.
var encodings = []struct {
	format Format
	file   string
	encode func(made, Request) ([]byte, error)
}{
	{PKCS8, PKCS8File, made.pkcs8},
	{PKCS12, PKCS12File, made.pkcs12File},
	{Kubernetes, SecretFile, made.secret},
	{PEM, KeyFile, made.pem},
}

// paired are the files that belong to one key.
func paired() []string {
	all := []string{CertFile, PasswordFile}
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

// PasswordOf is the one that was made for the PKCS #12 file of a client's folder.
func PasswordOf(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(Current(dir), PasswordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.Hinted(&fault.Usage{Err: fmt.Errorf("the password of %s in %s is not in %s", PKCS12File, dir, PasswordFile)},
			"--p12-password-file FILE")
	}
	if err != nil {
		return "", fmt.Errorf("read the password of a PKCS #12 file: %w", err)
	}
	return string(bytes.TrimRight(text, "\r\n")), nil
}

// encode writes down the key in the formats that are asked for.
func (m made) encode(r Request) (files []written, err error) {
	for _, e := range encodings {
		if !slices.Contains(r.Formats, e.format) {
			continue
		}
		content, err := e.encode(m, r)
		if err != nil {
			return nil, err
		}
		files = append(files, written{e.file, content, Secret})
	}
	if r.KeepPassword && slices.Contains(r.Formats, PKCS12) {
		files = append(files, written{PasswordFile, []byte(r.Password + "\n"), Secret})
	}
	return files, nil
}

func (m made) pem(Request) ([]byte, error) { return pki.EncodePrivateKeyPEM(m.key) }

func (m made) pkcs8(Request) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return der, nil
}

// secret is a manifest for kubectl. What stands in it needs no quotes.
func (m made) secret(r Request) ([]byte, error) {
	if len(m.server) == 0 {
		return nil, &fault.Usage{Err: errors.New("a Secret for Kubernetes has the CA that nodes are verified with: say --server-ca")}
	}
	key, err := m.pem(r)
	if err != nil {
		return nil, err
	}
	in := base64.StdEncoding.EncodeToString
	server, presented := pki.EncodeCertificatesPEM(m.server...), pki.EncodeCertificatesPEM(m.leafAndAbove()...)
	return fmt.Appendf(nil, `apiVersion: v1
kind: Secret
metadata:
  name: %s
type: kubernetes.io/tls
data:
  ca.crt: %s
  tls.crt: %s
  tls.key: %s
`, secretName(m.record.Certificate.Identity), in(server), in(presented), in(key)), nil
}

// maxSecretName is how long the name of an object in Kubernetes may be.
const maxSecretName = 253

// secretName is an identity's path in the letters that Kubernetes takes: app-checkout-client.
func secretName(id armor.Identity) string {
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(id.Path()))
	const end = "-client"
	return strings.TrimLeft(strings.TrimRight(letters[:min(len(letters), maxSecretName-len(end))], "-")+end, "-")
}

// leafAndAbove is what a client presents, its own certificate first.
func (m made) leafAndAbove() []*x509.Certificate {
	return append([]*x509.Certificate{m.cert}, m.chain...)
}
