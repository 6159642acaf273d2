package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/armordb/armordb/armor"
)

// The modes of what we write: keys and contexts are the owner's alone.
const (
	modeSecret = 0o600
	modePublic = 0o644
	modeDir    = 0o700
)

// readFile reads a file that the user named; that it is not there is the user's
// mistake.
func readFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	case err != nil:
		return nil, fmt.Errorf("read a file: %w", err)
	}
	return text, nil
}

// checkSecret refuses a file that others on this machine may read or write.
func checkSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return hinted(fmt.Errorf("%w: %s has mode %04o: others may read or change it", armor.ErrInvalid, path, mode), "chmod 600 %s", path)
	}
	return nil
}

// makeDir makes a folder that is the owner's alone, with its parents.
func makeDir(path string) error {
	if err := os.MkdirAll(path, modeDir); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	return nil
}
