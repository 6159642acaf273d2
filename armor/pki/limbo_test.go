package pki_test

import (
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// limboCase is one case of C2SP x509-limbo (testdata/limbo.json.gz, a subset).
type limboCase struct {
	ID              string   `json:"id"`
	Trusted         []string `json:"trusted_certs"`
	Intermediates   []string `json:"untrusted_intermediates"`
	PeerCertificate string   `json:"peer_certificate"`
	ValidationTime  string   `json:"validation_time"`
	Expected        string   `json:"expected_result"`
}

func limboCases(t testing.TB) []limboCase {
	t.Helper()
	file, err := os.Open("testdata/limbo.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Testcases []limboCase }
	if err := json.NewDecoder(plain).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all.Testcases
}

func parseOne(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	return x509.ParseCertificate(block.Bytes)
}

// verdict is what the two halves of our check say about one case.
type verdict struct {
	plain bool // crypto/x509 alone accepts it, for any usage
	ours  bool // our chain check and profile accept it
	rules map[pki.Rule]bool
}

// judge leaves out what tells a server's leaf from a client's (the suite's leaves
// are servers' with DNS names), so that what remains is what the case is about.
func judge(c limboCase) verdict {
	leaf, err := parseOne(c.PeerCertificate)
	if err != nil {
		return verdict{}
	}
	at := now
	if c.ValidationTime != "" {
		at, _ = time.Parse(time.RFC3339, c.ValidationTime)
	}
	roots, pool := x509.NewCertPool(), x509.NewCertPool()
	var anchors []armor.TrustAnchor
	chain := []*x509.Certificate{leaf}
	for _, text := range c.Trusted {
		if cert, err := parseOne(text); err == nil {
			roots.AddCert(cert)
			anchors = append(anchors, anchorOf(cert, "limbo"))
		}
	}
	for _, text := range c.Intermediates {
		if cert, err := parseOne(text); err == nil {
			pool.AddCert(cert)
			chain = append(chain, cert)
		}
	}
	v := verdict{rules: map[pki.Rule]bool{}}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	v.plain = err == nil
	for _, broken := range pki.Violations(leaf, pki.Profile{SVID: true}) {
		v.rules[broken.Rule] = true
	}
	delete(v.rules, pki.RuleIdentity)
	if slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		delete(v.rules, pki.RuleExtKeyUsage)
	}
	check, _ := pki.NewVerifier(anchors)
	_, err = check.Verify(chain, at)
	valid := !at.Before(leaf.NotBefore) && !at.After(leaf.NotAfter)
	v.ours = err == nil && valid && len(v.rules) == 0
	return v
}

// What crypto/x509 accepts against the suite's advice and we refuse, with the rule
// of ours that does it; "chain" is the chain check.
var limboRefused = map[string]pki.Rule{
	"rfc5280::leaf-ku-keycertsign":                         pki.RuleKeyUsage,
	"rfc5280::serial::too-long":                            pki.RuleSerial,
	"rfc5280::serial::zero":                                pki.RuleSerial,
	"webpki::eku::ee-anyeku":                               pki.RuleExtKeyUsage,
	"webpki::eku::ee-without-eku":                          pki.RuleExtKeyUsage,
	"webpki::ee-basicconstraints-ca":                       pki.RuleCA,
	"webpki::ca-as-leaf":                                   pki.RuleCA,
	"webpki::forbidden-weak-rsa-in-leaf":                   pki.RuleKey,
	"webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf": pki.RuleKey,
	"webpki::v1-cert":                                      pki.RuleVersion,
	"rfc5280::root-inconsistent-ca-extensions":             "chain",
	"webpki::forbidden-weak-rsa-key-in-root":               "chain",
	"webpki::forbidden-rsa-not-divisible-by-8-in-root":     "chain",
}

// What the suite advises to reject and we accept, and why that opens nothing: our
// decision rests on a signature by a registered anchor and on the one URI SAN.
var limboTolerated = map[string]string{
	"pathlen::max-chain-depth-0-exhausted":                 "a depth the case asks for; ours is 4",
	"pathlen::max-chain-depth-1-exhausted":                 "a depth the case asks for; ours is 4",
	"rfc5280::aki::leaf-missing-aki":                       "key identifiers are hints for building, not proof",
	"rfc5280::aki::intermediate-missing-aki":               "key identifiers are hints",
	"rfc5280::aki::cross-signed-root-missing-aki":          "key identifiers are hints",
	"rfc5280::ski::root-missing-ski":                       "key identifiers are hints",
	"rfc5280::ski::intermediate-missing-ski":               "key identifiers are hints",
	"webpki::aki::root-with-aki-missing-keyidentifier":     "key identifiers are hints",
	"webpki::aki::root-with-aki-authoritycertissuer":       "key identifiers are hints",
	"webpki::aki::root-with-aki-authoritycertserialnumber": "key identifiers are hints",
	"webpki::aki::root-with-aki-all-fields":                "key identifiers are hints",
	"webpki::aki::root-with-aki-ski-mismatch":              "key identifiers are hints",
	"rfc5280::eku::ee-wrong-eku":                           "wrong for a server: it is a client's",
	"webpki::eku::ee-critical-eku":                         "criticality of an extension that we do read",
	"rfc5280::nc::permitted-dns-match-noncritical":         "criticality of an extension that we do read",
	"rfc5280::root-non-critical-basic-constraints":         "criticality of an extension that we do read",
	"rfc5280::san::noncritical-with-empty-subject":         "criticality of an extension that we do read",
	"rfc5280::pc::ica-noncritical-pc":                      "criticality of an extension that we do read",
	"rfc5280::nc::invalid-dnsname-leading-period":          "DNS names are not looked at",
	"rfc5280::san::underscore-dns":                         "DNS names are not looked at",
	"rfc5280::san::ip-in-dns":                              "DNS names are not looked at",
	"rfc5280::nc::not-allowed-in-ee-noncritical":           "a leaf constrains nobody: it signs nothing",
	"rfc5280::nc::not-allowed-in-ee-critical":              "a leaf constrains nobody: it signs nothing",
	"rfc5280::ca-empty-subject":                            "anchors are known by fingerprint, not by name",
}

func TestLimboAcceptsOfCryptoX509BecomeRejects(t *testing.T) {
	seen := 0
	for _, c := range limboCases(t) {
		v := judge(c)
		if _, known := limboTolerated[c.ID]; v.ours && c.Expected == "FAILURE" && !known {
			t.Errorf("%s: accepted, and the suite says reject", c.ID)
		}
		rule, listed := limboRefused[c.ID]
		if !listed {
			continue
		}
		seen++
		if rule != "chain" && !v.rules[rule] {
			t.Errorf("%s: rule %s does not see it (%v)", c.ID, rule, v.rules)
		}
		if !v.plain {
			t.Errorf("%s: crypto/x509 refuses it too; take it off the list", c.ID)
		}
	}
	if seen != len(limboRefused) {
		t.Errorf("%d of %d listed cases are in testdata", seen, len(limboRefused))
	}
}

func TestLimboBrokenChainsAreRefusedByTheChainCheck(t *testing.T) {
	refused := 0
	for _, c := range limboCases(t) {
		if v := judge(c); c.Expected == "FAILURE" && !v.plain {
			refused++
			if v.ours {
				t.Errorf("%s: crypto/x509 refuses it, we do not", c.ID)
			}
		}
	}
	if refused < 30 {
		t.Fatalf("only %d cases looked at", refused)
	}
}
