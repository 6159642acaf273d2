package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Planted mistake that this catches: a verb that was renamed, or a new one of these nouns, whose
// names nobody completes.
func TestEveryArgumentThatNamesSomethingOfTheClusterIsCompleted(t *testing.T) {
	a, _, _ := testApp(t)
	root := a.command()
	seen := map[string]bool{}
	for _, cmd := range allCommands(root) {
		path := strings.TrimPrefix(cmd.CommandPath(), "armorctl ")
		seen[path] = true
		made := cmd.Name() == "add" || cmd.Name() == "create" // these name what is not there yet
		use := strings.Fields(cmd.Use)
		if len(use) < 2 || made {
			continue
		}
		for _, word := range []string{"NODE", "NAME", "NAME|ID", "NAME|FINGERPRINT", "[NAME]", "IDENTITY", "[IDENTITY]", "DATABASE", "SHELL"} {
			if use[1] == word && cmd.ValidArgsFunction == nil {
				t.Errorf("%s %s is not completed", cmd.CommandPath(), word)
			}
		}
	}
	for path := range argumentSources {
		if !seen[path] {
			t.Errorf("there is no command %s", path)
		}
	}
	for name := range flagSources {
		flag := name[strings.LastIndex(name, " ")+1:]
		used := false
		walk(root, func(cmd *cobra.Command) {
			_, completes := cmd.GetFlagCompletionFunc(flag)
			used = used || completes
		})
		if _, completes := root.GetFlagCompletionFunc(flag); !used && !completes {
			t.Errorf("no command has a flag --%s", flag)
		}
	}
}
