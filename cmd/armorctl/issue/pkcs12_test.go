package issue

import (
	"crypto"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/armordb/armordb/armor"
)

// Passwords whose UTF-16 fills less than a block of the hash, exactly one, and more; and other letters.
var passwords = []string{"a", strings.Repeat("b", 31), strings.Repeat("c", 40), "pässwörd", NewPassword()}

func TestPKCS12FileIsReadByOthersAndNamesItsKey(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("apt-get install --no-install-recommends openssl")
	}
	for _, password := range passwords {
		m := testMade(t)
		above := testMade(t)
		m.chain = []*x509.Certificate{above.cert}
		der, err := m.pkcs12File(Request{Password: password})
		if err != nil {
			t.Fatal(err)
		}
		key, cert, chain, err := pkcs12.DecodeChain(der, password)
		if err != nil || !samePublicKey(key.(crypto.Signer).Public(), m.key.Public()) || !cert.Equal(m.cert) || len(chain) != 1 {
			t.Errorf("go-pkcs12 reads %v, %v and %d more: %v", key, cert, len(chain), err)
		}
		if _, _, _, err := pkcs12.DecodeChain(der, password+"x"); err == nil {
			t.Error("another password opens it")
		}
		path := filepath.Join(t.TempDir(), PKCS12File)
		if err := os.WriteFile(path, der, Secret); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), openssl, "pkcs12", "-in", path, "-passin", "env:P12", "-nodes", "-nocerts")
		cmd.Env = append(cmd.Environ(), "P12="+password, "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "friendlyName: "+Alias+"\n") || !strings.Contains(string(out), "BEGIN PRIVATE KEY") {
			t.Errorf("openssl, password %q: %v: %s", password, err, out)
		}
	}
}

func TestNameOfASecretIsOneThatKubernetesTakes(t *testing.T) {
	for id, want := range map[string]string{
		"spiffe://a.test/app/checkout":                "app-checkout-client",
		"spiffe://a.test/App/Web_3.x":                 "app-web-3-x-client",
		"spiffe://a.test/___":                         "client",
		"spiffe://a.test/" + strings.Repeat("x", 300): strings.Repeat("x", maxSecretName-len("-client")-1) + "-client",
	} {
		if got := secretName(armor.Identity(id)); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}
