package main

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra/doc"
)

// TestEveryCommandHasAManPage also leaves them in the folder ARMOR_MAN, for the package
// (tools/deb.sh). It is a test, so that what writes them is in no program.
func TestEveryCommandHasAManPage(t *testing.T) {
	dir := cmp.Or(os.Getenv("ARMOR_MAN"), t.TempDir())
	root := command()
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: "Armor", Manual: "Armor"}, dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "armord-"+cmd.Name()+".8")); err != nil {
			t.Error(err)
		}
	}
}
