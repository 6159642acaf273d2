package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestVerifiersAreReadAsPgBouncerWritesThem(t *testing.T) {
	s := secrets{t.TempDir()}
	put(t, filepath.Join(s.dir, "apps.verifiers"),
		"# from pg_authid\n\n\"app\" \"SCRAM-SHA-256$1\"\r\n  \"o\"\"dd role\"\t\"x\"  \n; no more\n")
	got, err := s.Verifiers("apps")
	if want := map[string]string{"app": "SCRAM-SHA-256$1", `o"dd role`: "x"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUnfitVerifierFilesAreRefusedAndNeverRepeated(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "# nothing\n",
		"not quoted":    "app hush\n",
		"half a line":   `"app"` + "\n",
		"not closed":    `"app" "hush` + "\n",
		"three words":   `"app" "hush" ""` + "\n",
		"glued comment": `"app" "hush" # no` + "\n",
		"no role":       `"" "hush"` + "\n",
		"twice":         "\"app\" \"hush\"\n\"app\" \"hush\"\n",
	} {
		s := secrets{t.TempDir()}
		put(t, filepath.Join(s.dir, "v.verifiers"), text)
		if _, err := s.Verifiers("v"); !errors.Is(err, armor.ErrInvalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifiersAreSecretsOfOneFolder(t *testing.T) {
	s := secrets{t.TempDir()}
	if _, err := s.Verifiers("none"); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	if _, err := s.Verifiers("../apps"); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a path: %v", err)
	}
	path := filepath.Join(s.dir, "apps.verifiers")
	put(t, path, "\"app\" \"x\"\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verifiers("apps"); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("readable by others: %v", err)
	}
}
