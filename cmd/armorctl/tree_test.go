package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// testApp is a run with nothing in its environment and nobody to ask.
func testApp(t *testing.T) (a *app, out, errOut *bytes.Buffer) {
	t.Helper()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &app{in: in, out: out, errOut: errOut, env: func(string) string { return "" }, now: func() time.Time { return clock }}, out, errOut
}

// walk calls f for every command that does something.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	if !cmd.HasSubCommands() {
		f(cmd)
	}
	for _, child := range cmd.Commands() {
		if child.Name() != "help" {
			walk(child, f)
		}
	}
}

func TestEveryCommandTakesOutputAndShowsHowItIsUsed(t *testing.T) {
	a, _, _ := testApp(t)
	root := a.command()
	seen := 0
	walk(root, func(cmd *cobra.Command) {
		seen++
		if cmd.InheritedFlags().Lookup("output") == nil {
			t.Errorf("%s does not take -o", cmd.CommandPath())
		}
		if !strings.HasPrefix(strings.TrimSpace(cmd.Example), "armorctl ") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		first := cmd.Short
		if first == "" || strings.HasSuffix(first, ".") || first[:1] != strings.ToLower(first[:1]) {
			t.Errorf("%s: short text %q is empty, capitalised or has a full stop", cmd.CommandPath(), first)
		}
	})
	if seen < 30 {
		t.Errorf("the walk met %d commands only", seen)
	}
}

// TestExamplesAreUnderstood parses every example: a flag that was renamed must not live
// on in one.
func TestExamplesAreUnderstood(t *testing.T) {
	a, _, _ := testApp(t)
	root := a.command()
	walk(root, func(cmd *cobra.Command) {
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			words := shellWords(line)
			if len(words) == 0 {
				continue
			}
			found, rest, err := root.Find(words[1:])
			if err != nil || found != cmd {
				t.Errorf("%s: example %q is of %v (%v)", cmd.CommandPath(), line, found.CommandPath(), err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}

// shellWords splits a line as a shell does, as far as our examples need it.
func shellWords(line string) []string {
	line, _, _ = strings.Cut(line, " > ")
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		for j, quoted := range strings.Split(part, `"`) {
			if j%2 == 1 {
				words = append(words, quoted)
			} else {
				words = append(words, strings.Fields(quoted)...)
			}
		}
	}
	return words
}

func TestDocumentNamesEveryCommandAndExitCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/armorctl.md")
	if err != nil {
		t.Fatal(err)
	}
	a, _, _ := testApp(t)
	walk(a.command(), func(cmd *cobra.Command) {
		if name := strings.TrimPrefix(cmd.CommandPath(), "armorctl "); !strings.Contains(string(text), "`"+name) {
			t.Errorf("docs/armorctl.md does not mention `%s`", name)
		}
	})
	for _, code := range []int{
		exitDone, exitFailed, exitUsage, exitProblems, exitDenied, exitNotFound, exitConflict,
		exitUnavailable, exitUnconfirmed, exitUncertain, exitChanges, exitInterrupted,
	} {
		if !strings.Contains(string(text), fmt.Sprintf("| %d |", code)) {
			t.Errorf("docs/armorctl.md does not say what exit code %d means", code)
		}
	}
}
