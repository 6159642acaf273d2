package leak

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// History looks through all that a git repository has: every version of every file, also of
// branches that are gone, as long as git has not thrown it away; and the texts of commits and tags.
func (r Report) History(ctx context.Context, dir string) error {
	repository := git{dir}
	objects, err := repository.objects(ctx, r)
	if err != nil {
		return err
	}
	found := map[string][]Key{}
	var order []string
	inner := Report{
		Found: func(p Place, k Key) {
			if found[p.Object] == nil {
				order = append(order, p.Object)
			}
			found[p.Object] = append(found[p.Object], k)
		},
		Unread: r.Unread,
	}
	if err := repository.contents(ctx, objects, inner); err != nil {
		return err
	}
	for _, object := range order {
		p, err := repository.origin(ctx, object)
		if err != nil {
			return err
		}
		for _, k := range found[object] {
			r.Found(p, k)
		}
	}
	return nil
}

// git is the git program at work in a repository.
type git struct{ dir string }

// command does nothing that a repository's configuration asks for, and fetches nothing.
func (g git) command(ctx context.Context, args ...string) *exec.Cmd {
	always := []string{"-C", g.dir, "-c", "core.fsmonitor=false", "--no-pager", "--no-replace-objects"}
	cmd := exec.CommandContext(ctx, "git", append(always, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	return cmd
}

func (g git) output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := g.command(ctx, args...)
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s in %s: %w: %s", args[0], g.dir, err, strings.TrimSpace(failed.String()))
	}
	return out, nil
}

// objects names what may hold a key. What is too large is told of.
func (g git) objects(ctx context.Context, r Report) (names []string, err error) {
	out, err := g.output(ctx, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname) %(objecttype) %(objectsize)")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) != 3 || words[1] == "tree" {
			continue
		}
		size, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("git cat-file in %s says %q: %w", g.dir, line, err)
		}
		if size > MaxFile {
			r.Left(Place{Path: g.dir, Object: words[0]}, tooLarge)
			continue
		}
		names = append(names, words[0])
	}
	return names, nil
}

// contents looks through objects, one after another.
func (g git) contents(ctx context.Context, names []string, r Report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := g.command(ctx, "cat-file", "--batch")
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("git cat-file in %s: %w", g.dir, err)
	}
	in := bufio.NewReader(out)
	for range names {
		if err = g.content(in, r); err != nil {
			cancel() // it may still be writing
			break
		}
	}
	if ended := cmd.Wait(); err == nil {
		err = ended
	}
	if err != nil {
		return fmt.Errorf("git cat-file in %s: %w: %s", g.dir, err, strings.TrimSpace(failed.String()))
	}
	return nil
}

// content reads "NAME TYPE SIZE", the object and a line end.
func (g git) content(in *bufio.Reader, r Report) error {
	head, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	words := strings.Fields(head)
	if len(words) == 2 && words[1] == "missing" { // of a clone that has left objects out
		r.Unread(Place{Path: g.dir, Object: words[0]}, errors.New("the clone does not have it"))
		return nil
	}
	if len(words) != 3 {
		return fmt.Errorf("it says %q", strings.TrimSpace(head))
	}
	size, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || size > MaxFile {
		return fmt.Errorf("it says %q", strings.TrimSpace(head))
	}
	content := make([]byte, size+1)
	if _, err := io.ReadFull(in, content); err != nil {
		return err
	}
	r.look(Place{Path: g.dir, Object: words[0]}, content[:size])
	return nil
}

// origin says in which file and by which commit an object has come.
func (g git) origin(ctx context.Context, object string) (Place, error) {
	p := Place{Path: g.dir, Object: object}
	out, err := g.output(ctx, "log", "--all", "--reverse", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", "-m",
		"--find-object="+object, "--name-only", "--format=%x01%H%x00%an <%ae>%x00%aI%x00", "-z")
	if err != nil {
		return p, err
	}
	_, first, found := bytes.Cut(out, []byte{1})
	if !found { // a commit, a tag, or an object that nothing leads to
		return p, nil
	}
	words := strings.Split(string(first), "\x00")
	if len(words) < 3 {
		return p, fmt.Errorf("git log in %s: it says %q", g.dir, words)
	}
	p.Commit, p.By, p.When = words[0], words[1], words[2]
	for _, word := range words[3:] {
		if word = strings.TrimLeft(word, "\n"); word != "" && word[0] != 1 {
			p.Path = word
			break
		}
	}
	return p, nil
}
