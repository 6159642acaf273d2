package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// TestEveryVerbHasAManPage also leaves them in the folder ARMOR_MAN, for the package
// (tools/deb.sh). It is a test, so that what writes them is in no program.
func TestEveryVerbHasAManPage(t *testing.T) {
	dir := cmp.Or(os.Getenv("ARMOR_MAN"), t.TempDir())
	a, _, _ := testApp(t)
	root := a.command()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: "Armor", Manual: "Armor"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		t.Fatal(err)
	}
	walk(root, func(cmd *cobra.Command) {
		page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
		} else if text := strings.ReplaceAll(string(page), `\-`, "-"); !strings.Contains(text, cmd.CommandPath()) {
			t.Errorf("the page of %s does not show it", cmd.CommandPath())
		}
	})
}
