package pgwire

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func initial(mechanism, response string) []byte {
	b := append([]byte(mechanism), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(response)))
	return append(b, response...)
}

func TestSASLMessagesAreComposedAsDocumented(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{string(AppendAuthSASL(nil, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")),
			"R\x00\x00\x00\x2a\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"},
		{string(AppendAuthSASLContinue([]byte("x"), "r=1")), "xR\x00\x00\x00\x0b\x00\x00\x00\x0br=1"},
		{string(AppendAuthSASLFinal(nil, "v=1")), "R\x00\x00\x00\x0b\x00\x00\x00\x0cv=1"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestSASLInitial(t *testing.T) {
	mechanism, response, err := SASLInitial(initial("SCRAM-SHA-256", "n,,n=,r=x"))
	if mechanism != "SCRAM-SHA-256" || string(response) != "n,,n=,r=x" || err != nil {
		t.Errorf("%q %q %v", mechanism, response, err)
	}
	good := initial("M", "abc")
	for name, bad := range map[string][]byte{
		"nothing":            {},
		"no mechanism":       []byte("SCRAM-SHA-256"),
		"no length":          []byte("M\x00\x00\x00\x00"),
		"no response":        []byte("M\x00\xff\xff\xff\xff"),
		"an empty response":  initial("M", ""),
		"a cut response":     good[:len(good)-1],
		"more behind it":     append(initial("M", "abc"), 'd'),
		"a length below all": []byte("M\x00\x80\x00\x00\x00abc"),
		"a NUL in it":        initial("M", "a\x00c"),
		"too much":           initial("M", strings.Repeat("x", MaxSASL)),
	} {
		if _, _, err := SASLInitial(bad); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := SASLResponse([]byte(strings.Repeat("x", MaxSASL+1))); err == nil {
		t.Error("a response above the bound was taken")
	}
}

// FuzzSASL: whatever is read is a part of what was given, within its bounds.
func FuzzSASL(f *testing.F) {
	f.Add(initial("SCRAM-SHA-256", "n,,n=,r=x"))
	f.Add([]byte("M\x00\xff\xff\xff\xff"))
	f.Add([]byte("c=biws,r=x,p=y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if mechanism, response, err := SASLInitial(b); err == nil && len(mechanism)+1+4+len(response) != len(b) {
			t.Fatalf("%q %q of %q", mechanism, response, b)
		}
		if response, err := SASLResponse(b); err == nil && (len(response) != len(b) || len(b) > MaxSASL) {
			t.Fatalf("%q of %q", response, b)
		}
	})
}
