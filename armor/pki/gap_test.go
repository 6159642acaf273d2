package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/pki"
)

func TestGapNamesWhatIsMissing(t *testing.T) {
	root := rootAuthority(t, "root", time.Hour)
	sub := root.intermediate(t, "sub", nil)
	ended := root.intermediate(t, "ended", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) })
	stranger, namesake := rootAuthority(t, "stranger", time.Hour), rootAuthority(t, "root", time.Hour)
	long := root.intermediate(t, strings.Repeat("x", 5000), nil)
	quoted := root.intermediate(t, "a\nb", nil)
	of := func(a authority) *x509.Certificate { return good(t, a.cert, a.key).sign(t) }
	for name, c := range map[string]struct {
		sent []*x509.Certificate
		gap  string
	}{
		"the intermediate":    {[]*x509.Certificate{of(sub)}, `CN=sub" was not sent`},
		"another was sent":    {[]*x509.Certificate{of(sub), stranger.cert}, `CN=sub" was not sent`},
		"an unknown root":     {[]*x509.Certificate{of(stranger), stranger.cert}, `CN=stranger" is no trust anchor`},
		"a namesake":          {[]*x509.Certificate{of(namesake)}, "its key has not signed"},
		"an ended issuer":     {[]*x509.Certificate{of(ended), ended.cert}, `CN=ended" ended at`},
		"a long name":         {[]*x509.Certificate{of(long)}, "…"},
		"a name of two lines": {[]*x509.Certificate{of(quoted)}, `a\nb`},
		"nothing":             {nil, ""},
		"another reason":      {[]*x509.Certificate{of(sub), sub.cert}, ""},
		"more than is read":   {[]*x509.Certificate{of(sub), sub.cert, sub.cert, sub.cert, sub.cert}, ""},
	} {
		got := pki.Gap(c.sent, []*x509.Certificate{root.cert}, now)
		if (got == "") != (c.gap == "") || !strings.Contains(got, c.gap) || len(got) > 700 {
			t.Errorf("%s: %q, want %q", name, got, c.gap)
		}
	}
	if got := pki.Gap([]*x509.Certificate{of(sub)}, nil, now); !strings.Contains(got, (pkix.Name{CommonName: "sub"}).String()) {
		t.Errorf("without an anchor: %q", got)
	}
}
