package leak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxFile is how large a file may be to be looked into.
const MaxFile = 16 << 20

// Place is something that was looked into: a file, or an object of a git repository.
type Place struct {
	Path string
	// Object is the git object, and Commit the first commit that has it; empty: no commit of any
	// branch or tag does. By is who made that commit, and When.
	Object, Commit, By, When string
}

// Report is told of what is found, and of what could not be looked into.
type Report struct {
	Found  func(Place, Key)
	Unread func(p Place, why error)  // nobody knows what is in it
	Left   func(p Place, why string) // it was left out, as is documented
}

// look looks through a content.
func (r Report) look(p Place, content []byte) {
	keys, whole := Find(content)
	for _, k := range keys {
		r.Found(p, k)
	}
	if !whole {
		r.Unread(p, errors.New("it holds more than is looked through"))
	}
}

// Reader looks through what a reader gives.
func (r Report) Reader(name string, in io.Reader) error {
	content, err := io.ReadAll(io.LimitReader(in, MaxFile+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(content) > MaxFile {
		r.Left(Place{Path: name}, tooLarge)
		return nil
	}
	r.look(Place{Path: name}, content)
	return nil
}

var tooLarge = fmt.Sprintf("it is larger than %d MiB", MaxFile>>20)

// Files looks through a file, or all files in a folder and below it but for .git. What is no
// regular file is left out, and so are links: what they lead to is found where it is.
func (r Report) Files(ctx context.Context, root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("look through a folder: %w", err)
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.Unread(Place{Path: path}, err)
			return nil
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.Type().IsRegular():
			r.file(path)
		}
		return nil
	})
}

func (r Report) file(path string) {
	f, err := os.Open(path)
	if err != nil {
		r.Unread(Place{Path: path}, err)
		return
	}
	defer f.Close()
	if err := r.Reader(path, f); err != nil {
		r.Unread(Place{Path: path}, err)
	}
}
