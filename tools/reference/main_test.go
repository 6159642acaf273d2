package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rowsOf(t *testing.T, source string) ([]row, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.go")
	if err := os.WriteFile(path, []byte("package x\n"+source), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := readShapes(path)
	if err != nil {
		t.Fatal(err)
	}
	return s.rows("Top", "")
}

func TestEachFieldIsARowInTheWordsOfTheFile(t *testing.T) {
	rows, err := rowsOf(t, "type Top struct {\n// CertFile and KeyFile are a pair | PEM. Default: none.\nCertFile string `yaml:\"certFile\"`\nKeyFile string `yaml:\"keyFile\"`\n"+
		"// Inner is more.\nInner Inner `yaml:\"inner\"`\n// Map is by name. Default: empty.\nMap map[string]Inner `yaml:\"map\"`\n"+
		"// CA is a secret. Required.\nCA Secret `yaml:\"ca\"`\n}\n"+
		"type Inner struct {\n// List is many. Required.\nList []int `yaml:\"list,omitempty\"`\n// Two is two. Default: 2.\nTwo int `yaml:\"two\"`\n}\n"+
		"type Secret struct {\n// Secret is a name. Required.\nSecret string `yaml:\"secret\"`\n}")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join([]string{r.keys, r.kind, r.text}, " / "))
	}
	want := []string{
		"`certFile`, `keyFile` / text / `certFile` and `keyFile` are a pair \\| PEM. Default: none.",
		"`inner.list` / list of number / `list` is many. Required.", "`inner.two` / number / `two` is two. Default: 2.",
		"`map` / by name / `map` is by name. Default: empty.",
		"`map.NAME.list` / list of number / `list` is many. Required.", "`map.NAME.two` / number / `two` is two. Default: 2.",
		"`ca.secret` / text / `ca` is a secret. Required.",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAFieldThatSaysNothingIsAnError(t *testing.T) {
	for name, source := range map[string]string{
		"no comment": "type Top struct {\nX int `yaml:\"x\"`\n}",
		"no default": "type Top struct {\n// X is something.\nX int `yaml:\"x\"`\n}",
	} {
		if _, err := rowsOf(t, source); err == nil || !strings.Contains(err.Error(), "Top.X") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheReferenceIsWhatTheCodeSays(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}
