package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTimersCommandIsUnderstood parses what the unit runs, and wants its file of settings
// to be what the document shows.
func TestTimersCommandIsUnderstood(t *testing.T) {
	unit := shipped(t, "deploy/debian/armor-renew@.service")
	_, rest, _ := strings.Cut(unit, "\nExecStart=/usr/bin/")
	line, _, _ := strings.Cut(rest, "\n")
	words := shellWords(line)
	if len(words) < 3 {
		t.Fatalf("the unit runs %q", line)
	}
	a, _, _ := testApp(t)
	found, args, err := a.command().Find(words[1:])
	if err != nil || found.CommandPath() != "armorctl cert renew" {
		t.Fatalf("%q is %s, %v", line, found.CommandPath(), err)
	}
	if err := found.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := found.ValidateArgs(found.Flags().Args()); err != nil {
		t.Fatal(err)
	}
	if !found.Flags().Changed("if-expiring") {
		t.Error("the timer renews each time")
	}
	docs := shipped(t, "docs/armorctl.md")
	for _, word := range words {
		if name, ok := strings.CutPrefix(word, "${"); ok && !strings.Contains(docs, "\n"+strings.TrimSuffix(name, "}")+"=") {
			t.Errorf("docs/armorctl.md does not say what to put into %s", word)
		}
	}
}

// shipped reads a file of the project by its path from the top level.
func shipped(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
