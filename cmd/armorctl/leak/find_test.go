package leak

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
)

// subject is a key in each form, and what it must be told as.
type subject struct {
	digest                  armor.Digest
	pkcs8, sec1, p12, trust []byte
	pem                     string
}

func newSubject(t testing.TB) subject {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var s subject
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s.digest = sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	for _, form := range []struct {
		into   *[]byte
		encode func() ([]byte, error)
	}{
		{&s.pkcs8, func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }},
		{&s.sec1, func() ([]byte, error) { return x509.MarshalECPrivateKey(key) }},
		{&s.p12, func() ([]byte, error) { return pkcs12.Modern2023.Encode(key, cert, nil, "changeit") }},
		{&s.trust, func() ([]byte, error) {
			return pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{cert}, "changeit")
		}},
	} {
		if *form.into, err = form.encode(); err != nil {
			t.Fatal(err)
		}
	}
	s.pem = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: s.pkcs8}))
	return s
}

// written are all the ways in which a key lies about, and the line that it stands in.
func (s subject) written() map[string]struct {
	text string
	line int
} {
	in := base64.StdEncoding.EncodeToString
	quoted, _ := json.Marshal(s.pem)
	var concatenated strings.Builder
	for line := range strings.Lines(s.pem) {
		fmt.Fprintf(&concatenated, "\t\t\"%s\\n\" +\n", strings.TrimSpace(line))
	}
	folded := in([]byte(s.pem))
	utf := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune("one\n" + s.pem)) {
		utf = binary.LittleEndian.AppendUint16(utf, unit)
	}
	type at = struct {
		text string
		line int
	}
	return map[string]at{
		"PEM":                       {"# a comment\n\n" + s.pem, 3},
		"PEM, Windows":              {"one\r\n" + strings.ReplaceAll(s.pem, "\n", "\r\n"), 2},
		"PEM, UTF-16":               {string(utf), 2},
		"SEC 1 in PEM":              {string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: s.sec1})), 1},
		"YAML":                      {"a: b\nkey: |\n    " + strings.ReplaceAll(s.pem, "\n", "\n    "), 3},
		"JSON":                      {"{\n\"key\": " + string(quoted) + "}", 2},
		"twice escaped":             {strings.ReplaceAll(string(quoted), `\n`, `\\n`), 1},
		".env":                      {"A=b\nKEY='" + strings.ReplaceAll(s.pem, "\n", `\n`) + "'", 2},
		"one line":                  {"KEY=" + strings.ReplaceAll(s.pem, "\n", " "), 1},
		"a diff":                    {"+++ b/x\n+" + strings.ReplaceAll(s.pem, "\n", "\n+"), 2},
		"a comment":                 {"x := 1\n\t// " + strings.ReplaceAll(s.pem, "\n", "\n\t// "), 2},
		"URL":                       {strings.ReplaceAll(s.pem, "\n", "%0A"), 1},
		"string that goes on":       {"var key = \"\" +\n" + concatenated.String(), 2},
		"Secret":                    {"data:\n  tls.key: " + in([]byte(s.pem)) + "\n  tls.crt: x", 2},
		"Secret, certificate first": {"data:\n  pem: " + in([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"+s.pem)), 2},
		"Secret, folded":            {"key: |\n  " + folded[:76] + "\n  " + folded[76:152] + "\n  " + folded[152:], 2},
		"Secret of a Secret":        {in([]byte("tls.key: " + in([]byte(s.pem)))), 1},
		"DER in a Secret":           {"client.pk8: " + in(s.pkcs8), 1},
		"DER behind a word":         {"KEY\n" + in(s.sec1), 2},
		"PKCS #12 in a Secret":      {"a: b\nclient.p12: " + in(s.p12), 2},
		"DER":                       {string(s.pkcs8), 1},
		"SEC 1":                     {string(s.sec1), 1},
		"PKCS #12":                  {string(s.p12), 1},
	}
}

func TestKeyIsFoundHoweverItIsWrittenDown(t *testing.T) {
	s := newSubject(t)
	for name, w := range s.written() {
		keys, whole := Find([]byte(w.text))
		if len(keys) != 1 || !whole || keys[0].Digest != s.digest || keys[0].Line != w.line || keys[0].Algorithm != "ECDSA P-256" {
			t.Errorf("%s: found %+v (whole: %v), and the key is in line %d:\n%s", name, keys, whole, w.line, w.text)
		}
	}
}

func TestEachKeyOfAFileIsToldOnce(t *testing.T) {
	one, two := newSubject(t), newSubject(t)
	keys, _ := Find([]byte(one.pem + "x\n" + two.pem + one.pem + base64.StdEncoding.EncodeToString(two.pkcs8)))
	if len(keys) != 2 || keys[0].Digest != one.digest || keys[1].Digest != two.digest || keys[1].Line != 7 {
		t.Errorf("found %+v", keys)
	}
}

func TestWhatHoldsNoKeyIsNoFind(t *testing.T) {
	s := newSubject(t)
	for name, text := range map[string]string{
		"nothing":       "",
		"a document":    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\nand const a = \"-----BEGIN PRIVATE KEY-----\"",
		"cut off":       s.pem[:len(s.pem)/2],
		"a certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.trust})),
		"a trust store": string(s.trust),
		"a public key":  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.pkcs8[20:]})),
		"letters":       strings.Repeat("M", 100_000),
	} {
		if keys, _ := Find([]byte(text)); len(keys) != 0 {
			t.Errorf("%s: found %+v", name, keys)
		}
	}
}

func TestSealedKeysAreToldOf(t *testing.T) {
	s := newSubject(t)
	sealed, err := pkcs12.Modern2023.Encode(mustParse(t, s.pkcs8), certOf(t, s), nil, "nobody guesses this")
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := pkcs12.Modern2023.WithIterations(maxRounds+1).Encode(mustParse(t, s.pkcs8), certOf(t, s), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	encrypted := encryptedKey(t)
	for name, text := range map[string]string{
		"PKCS #12 file that needs its password":  string(sealed),
		"PKCS #12 file that needs its password ": string(greedy),
		"PKCS #8 key that needs its password":    string(encrypted),
		"PKCS #8 key that needs its password ":   string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted})),
		"PEM key that needs its password": "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n" +
			"-----END RSA PRIVATE KEY-----\n",
		"OpenSSH key, which is not read": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n",
	} {
		keys, _ := Find([]byte(text))
		if len(keys) != 1 || !keys[0].Unread() || keys[0].Form != strings.TrimSpace(name) {
			t.Errorf("%s: found %+v", name, keys)
		}
	}
}

// encryptedKey is an EncryptedPrivateKeyInfo whose content is nonsense.
func encryptedKey(t *testing.T) []byte {
	t.Helper()
	type algorithm struct{ ID asn1.ObjectIdentifier }
	der, err := asn1.Marshal(struct {
		Algorithm algorithm
		Data      []byte
	}{algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}}, make([]byte, 80)})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func mustParse(t *testing.T, der []byte) any {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certOf(t *testing.T, s subject) *x509.Certificate {
	t.Helper()
	certs, err := pkcs12.DecodeTrustStore(s.trust, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

// TestHostileFileIsGivenUp: lines that each claim to begin a long value are not decoded for as
// long as their writer likes, and it is said that the file was not looked through.
func TestHostileFileIsGivenUp(t *testing.T) {
	line := base64.StdEncoding.EncodeToString(append([]byte{0x30, 0x83, 0x02, 0x00, 0x00, 0x02, 0x01, 0x00}, make([]byte, 4)...))
	keys, whole := Find(bytes.Repeat([]byte(line+"\n"), 40_000))
	if len(keys) != 0 || whole {
		t.Errorf("found %+v, whole: %v", keys, whole)
	}
	var many strings.Builder
	for range maxFound + 1 {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		many.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if keys, whole := Find([]byte(many.String())); len(keys) != maxFound || whole {
		t.Errorf("found %d, whole: %v", len(keys), whole)
	}
}

func TestOrdinaryFilesAreLookedThroughToTheirEnd(t *testing.T) {
	for _, pattern := range []string{"*.go", "../../../go.sum", "../../../docs/*.md", "../../../armor/wire/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if keys, whole := Find(content); len(keys) > 0 && !strings.HasSuffix(path, "_test.go") || !whole {
				t.Errorf("%s: found %+v, whole: %v", path, keys, whole)
			}
		}
	}
}

func FuzzFind(f *testing.F) {
	s := newSubject(f)
	for _, w := range s.written() {
		f.Add([]byte(w.text))
	}
	f.Add(s.trust)
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END EC PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, content []byte) {
		before := bytes.Clone(content)
		keys, _ := Find(content)
		if !bytes.Equal(before, content) {
			t.Error("it has changed what it looked through")
		}
		lines := bytes.Count(content, []byte("\n")) + 1
		for _, k := range keys {
			if k.Line < 1 || k.Line > lines || k.Form == "" || k.Unread() != (k.Algorithm == "") {
				t.Errorf("found %+v in %d lines", k, lines)
			}
		}
	})
}
