package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/armordb/armordb/armor"
)

// writeFile replaces path with content: a reader sees the old file or the new one,
// also after a crash.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = errors.Join(fill(f, content, mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, removeIfThere(f.Name())))
	}
	return nil
}

func fill(f *os.File, content []byte, mode fs.FileMode) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isThere reports whether every path names a file.
func isThere(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return false
		}
	}
	return true
}

// guarded turns a panic of the YAML decoder into an error. goccy/go-yaml 1.19.2 panics
// on some documents, such as a tag without a value where a list should be.
func guarded(decode func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: malformed YAML", armor.ErrInvalid)
		}
	}()
	return decode()
}
