package issue

import "testing"

func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"keys": [{"use": "x509-svid", "x5c": ["MIIB"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := parseBundle(text)
		if (err == nil) != (len(certs) > 0) || len(certs) > maxBundle {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}
