package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is a document whose fenced blocks are run in their order, as a reader would:
//
//	sh        a script, which must end well
//	console   commands behind "$ ", each with all of its output: none is none. In a
//	          line … stands for anything, and a line of … for any lines
//	others    a file, named in a comment that is the block's first line
//
// A block that is none of these fails the test: nothing is skipped. All commands are
// run by one shell, as far as its variables go.
type page struct {
	path string
	dir  string // where the commands are run
	env  []string
	// replace are pairs: what is written, and what it is here. Each must occur.
	replace []string
	// before is what the test does for the reader, by the heading of the section whose
	// commands need it.
	before map[string]func()

	used map[string]bool
}

// block is a fenced block.
type block struct {
	line     int
	language string
	heading  string
	text     []string
}

// run runs every block and stops at the first that fails.
func (p *page) run(t *testing.T) {
	t.Helper()
	source, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := readBlocks(string(source))
	if err != nil {
		t.Fatalf("%s: %v", p.path, err)
	}
	p.used = map[string]bool{}
	for _, b := range blocks {
		if do := p.before[b.heading]; do != nil && (b.language == "sh" || b.language == "console") {
			do()
			delete(p.before, b.heading)
		}
		if err := p.do(t, b); err != nil {
			t.Fatalf("%s:%d: %v", p.path, b.line, err)
		}
	}
	for heading := range p.before {
		t.Errorf("%s has no section %q with a command", p.path, heading)
	}
	for i := 0; i < len(p.replace); i += 2 {
		if !p.used[p.replace[i]] {
			t.Errorf("%s does not hold %q any more: take it out of what is replaced", p.path, p.replace[i])
		}
	}
}

// readBlocks finds the fenced blocks of a document.
func readBlocks(source string) (blocks []block, err error) {
	heading, open := "", -1
	for i, line := range strings.Split(source, "\n") {
		fence, fenced := strings.CutPrefix(line, "```")
		switch {
		case fenced && open < 0:
			open = i + 1
			blocks = append(blocks, block{line: i + 1, language: fence, heading: heading})
		case fenced:
			open = -1
		case open >= 0:
			last := &blocks[len(blocks)-1]
			last.text = append(last.text, line)
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		}
	}
	if open >= 0 {
		return nil, fmt.Errorf("the block of line %d is not closed", open)
	}
	return blocks, nil
}

func (p *page) do(t *testing.T, b block) error {
	t.Helper()
	for i, line := range b.text {
		b.text[i] = p.here(line)
	}
	switch b.language {
	case "sh":
		out, err := p.shell(t, "set -eu -o pipefail\n"+strings.Join(b.text, "\n"))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	case "console":
		return p.console(t, b)
	}
	if len(b.text) == 0 {
		return fmt.Errorf("nobody runs this block of %q: it is empty", b.language)
	}
	name := strings.TrimLeft(b.text[0], ";# ")
	if !regexp.MustCompile(`^[a-z.-]+\.[a-z]+$`).MatchString(name) {
		return fmt.Errorf("nobody runs this block of %q: it is no sh or console, and its first line names no file", b.language)
	}
	return os.WriteFile(filepath.Join(p.dir, name), []byte(strings.Join(b.text, "\n")+"\n"), 0o644)
}

// here replaces the document's names with those of the test.
func (p *page) here(line string) string {
	for i := 0; i < len(p.replace); i += 2 {
		if strings.Contains(line, p.replace[i]) {
			p.used[p.replace[i]] = true
		}
	}
	return strings.NewReplacer(p.replace...).Replace(line)
}

// console runs a block's commands and compares what they print.
func (p *page) console(t *testing.T, b block) error {
	if len(b.text) == 0 || !strings.HasPrefix(b.text[0], "$ ") {
		return fmt.Errorf("the block asserts nothing: it does not begin with a command")
	}
	for i := 0; i < len(b.text); {
		command, next := strings.TrimPrefix(b.text[i], "$ "), i+1
		for next < len(b.text) && !strings.HasPrefix(b.text[next], "$ ") {
			next++
		}
		out, err := p.shell(t, command)
		if err != nil {
			return fmt.Errorf("$ %s\n%w: %s", command, err, out)
		}
		if want := b.text[i+1 : next]; !matches(printed(out), want) {
			return fmt.Errorf("$ %s\nprinted\n%s\nnot\n%s", command, out, strings.Join(want, "\n"))
		}
		i = next
	}
	return nil
}

func printed(out []byte) []string {
	text := strings.TrimRight(string(out), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// matches compares lines, whatever white space is between their words.
func matches(got, want []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		return slices.ContainsFunc(upTo(len(got)), func(n int) bool { return matches(got[n:], want[1:]) })
	}
	return len(got) > 0 && lineMatches(got[0], want[0]) && matches(got[1:], want[1:])
}

// upTo is 0 to n.
func upTo(n int) []int {
	all := make([]int, n+1)
	for i := range all {
		all[i] = i
	}
	return all
}

func lineMatches(got, want string) bool {
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(squeeze(want)), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(squeeze(got))
}

// shell runs a script and returns what it prints. What it exports is there for the next.
func (p *page) shell(t *testing.T, script string) ([]byte, error) {
	t.Helper()
	state := p.dir + ".state"
	cmd := exec.CommandContext(t.Context(), "bash", "-c", `[ ! -e "$0" ] || . "$0"
trap 'export -p >"$0"' EXIT
`+script, state)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}

// TestBlocksAreNotSkipped: the runner itself notices what nobody runs and what is not as
// it is written.
func TestBlocksAreNotSkipped(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no language":       {"```\necho\n```\n", "nobody runs this block"},
		"a file, no name":   {"```ini\n[x]\n```\n", "names no file"},
		"an empty block":    {"```yaml\n```\n", "it is empty"},
		"no command":        {"```console\nhello\n```\n", "asserts nothing"},
		"a script fails":    {"```sh\nfalse\ntrue\n```\n", "exit status 1"},
		"a pipe fails":      {"```sh\nfalse | true\n```\n", "exit status 1"},
		"a command fails":   {"```console\n$ false\n```\n", "exit status 1"},
		"other output":      {"```console\n$ echo a\nb\n```\n", "printed"},
		"more output":       {"```console\n$ echo a; echo b\na\n```\n", "printed"},
		"output, none here": {"```console\n$ echo a\n```\n", "printed"},
		"less output":       {"```console\n$ echo a\na\nb\n```\n", "printed"},
	} {
		p := &page{path: "page.md", dir: t.TempDir(), used: map[string]bool{}}
		blocks, err := readBlocks(c.text)
		if err == nil {
			err = p.do(t, blocks[0])
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := readBlocks("```sh\ntrue\n"); err == nil {
		t.Error("a block that is not closed is taken")
	}
	p := &page{path: "page.md", dir: t.TempDir(), used: map[string]bool{}, replace: []string{"there", "here"}}
	good := "# One\n```text\n# a.txt\nhello there\n```\n```sh\nexport X=5\n```\n```console\n$ cat a.txt; echo $X\n…\nhello   there\n…\n$ echo a-b-c; echo d\na-…-c\nd\n$ true\n```\n"
	blocks, err := readBlocks(good)
	if err != nil || len(blocks) != 3 || blocks[2].heading != "One" {
		t.Fatalf("%v, %+v", err, blocks)
	}
	for _, b := range blocks {
		if err := p.do(t, b); err != nil {
			t.Error(err)
		}
	}
}
