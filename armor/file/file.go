// Package file writes files so that a crash leaves nothing half written.
//
// It is for keys, certificates, configuration, marks and saved states: files that are
// written whole. It knows nothing of what they hold.
//
// Invariant: whoever opens a file that Replace writes sees all of the old content or
// all of the new, also after a crash.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace puts content into the file at path, whether there was one before or not, and
// returns once the disk has it.
func Replace(path string, content []byte, mode fs.FileMode) error {
	p, err := Begin(path, mode)
	if err != nil {
		return err
	}
	if _, err := p.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, p.Discard()))
	}
	return p.Commit()
}

// Pending is a file that is not there before Commit: it is written beside its place, under
// a name that begins with a dot and its own.
type Pending struct {
	*os.File
	path string
}

// Begin begins to write the file at path. It ends by Commit or Discard.
func Begin(path string, mode fs.FileMode) (*Pending, error) {
	f, err := os.CreateTemp(filepath.Dir(path), PendingPrefix(path)+"*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	p := &Pending{f, path}
	if err := f.Chmod(mode); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, errors.Join(err, p.Discard()))
	}
	return p, nil
}

// PendingPrefix is how the name of a file begins that is to become the one at path: what a
// crash has left of it.
func PendingPrefix(path string) string { return "." + filepath.Base(path) + "-" }

// Commit puts the file in its place, whether there was one before or not, and returns once the
// disk has it. On an error the place is as it was.
func (p *Pending) Commit() error {
	err := errors.Join(p.Sync(), p.Close())
	if err == nil {
		err = os.Rename(p.Name(), p.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(p.path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", p.path, errors.Join(err, Remove(p.Name())))
	}
	return nil
}

// Discard takes the file away.
func (p *Pending) Discard() error { return errors.Join(p.Close(), Remove(p.Name())) }

// Link puts a symbolic link to target at path, whatever was there before, and returns once the
// disk has it.
func Link(path, target string) error {
	dir := filepath.Dir(path)
	beside, err := os.MkdirTemp(dir, PendingPrefix(path)+"*")
	if err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	link := filepath.Join(beside, filepath.Base(path))
	if err = os.Symlink(target, link); err == nil {
		err = os.Rename(link, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err = errors.Join(err, os.RemoveAll(beside)); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove deletes the file at path; that there is none is no error.
func Remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Exist reports whether there is something at each of the paths.
func Exist(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return false
		}
	}
	return true
}
