package password

import (
	"maps"
	"strings"
	"testing"
)

func FuzzParseFile(f *testing.F) {
	f.Add("\"a\" \"b\"\n\"c\"\"\" \"d\"\n")
	f.Add("# x\n\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseFile(text)
		if err != nil {
			return
		}
		var again strings.Builder
		for role, verifier := range all {
			again.WriteString(`"` + strings.ReplaceAll(role, `"`, `""`) + `" "` + strings.ReplaceAll(verifier, `"`, `""`) + "\"\n")
		}
		if got, err := ParseFile(again.String()); err != nil || !maps.Equal(got, all) {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
