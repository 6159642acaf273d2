package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// endless repeats a text for ever.
type endless struct{ text, rest string }

func (e *endless) Read(b []byte) (int, error) {
	if e.rest == "" {
		e.rest = e.text
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestListsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		from io.Reader
		want string
	}{
		"an endless list": {&endless{text: "# " + strings.Repeat("x", 4000) + "\n"}, "list: invalid: more than 67108864 bytes"},
		"an endless line": {&endless{text: "x"}, "list:1: invalid: more than 4096 bytes"},
		"a long line":     {strings.NewReader("\n# a\nkey " + strings.Repeat("1", 5000)), "list:3: invalid: more than 4096 bytes"},
	} {
		_, err := parseList(scope{}, "list", c.from)
		if !errors.Is(err, armor.ErrInvalid) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is read means something, and is read again from its own words.
func FuzzSelectorList(f *testing.F) {
	f.Add([]byte("# a\n\nkey 0000000000000000000000000000000000000000000000000000000000000001\nidentity spiffe://a.b/c/*\n"))
	f.Add([]byte("certificate 0000000000000000000000000000000000000000000000000000000000000001/00:ab\r\n"))
	f.Add([]byte("issuer 01"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseList(scope{}, "list", bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range all {
			if err := s.Validate(); err != nil {
				t.Fatalf("%+v: %v", s, err)
			}
			if again, err := parseSelector(scope{}, s.String()); err != nil || again != s {
				t.Fatalf("%q is read as %+v, %v", s, again, err)
			}
		}
	})
}
