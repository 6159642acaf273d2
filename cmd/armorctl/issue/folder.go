package issue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// A client's folder as it is first written holds plain files. Once they are replaced, each of
// its names is a link through one other:
//
//	client.crt ─▶ .current/client.crt        .current ─▶ .pair-1
//	client.key ─▶ .current/client.key        .pair-1, .pair-2: one certificate each, with its key
//
// To replace them is to rename one link, so that there is no instant, and no crash leaves one, at
// which the folder has a certificate beside another's key. Whoever finds .current once and reads
// both there has a pair, whatever happens meanwhile: the former one stays until the next renewal.

// currentLink leads to the folder that the files of a client's folder are in.
const currentLink = ".current"

// pairPrefix is how the names of those folders begin.
const pairPrefix = ".pair-"

// written is one file of a client's folder.
type written struct {
	name    string
	content []byte
	mode    fs.FileMode
}

// Current is where the files of a client's folder are read together: one certificate and its key.
func Current(dir string) string {
	if !isLinked(dir, CertFile) { // as it was first written, or somebody has put another file there
		return dir
	}
	target, err := os.Readlink(filepath.Join(dir, currentLink))
	if err != nil {
		return dir
	}
	return filepath.Join(dir, target)
}

// isLinked reports whether a name of a client's folder leads through the one link.
func isLinked(dir, name string) bool {
	target, err := os.Readlink(filepath.Join(dir, name))
	return err == nil && target == filepath.Join(currentLink, name)
}

// Lock keeps others from renewing a client's folder until the function that it returns is called,
// or the process ends.
func Lock(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no folder %s", armor.ErrNotFound, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open a folder: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		taken := fmt.Errorf("%w: somebody else is renewing %s", armor.ErrConflict, dir)
		return nil, errors.Join(fault.Hinted(taken, "wait for them, and run it again"), d.Close())
	}
	return d.Close, nil
}

// handOut writes a certificate's files, the key before the certificate. Readers of an earlier one
// see all of it or all of the new one.
func handOut(dir string, files []written) error {
	if !slices.ContainsFunc(paired(), func(name string) bool { return file.Exist(filepath.Join(dir, name)) }) {
		for _, f := range files {
			if err := file.Replace(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
				return err
			}
		}
		return nil
	}
	if err := linkAll(dir); err != nil {
		return err
	}
	former := Current(dir)
	if err := turn(dir, files); err != nil {
		return err
	}
	return errors.Join(makeLinks(dir, files), removeDangling(dir), removePairs(dir, filepath.Base(former)))
}

// linkAll puts links in the places of files that are none, of the same content: no reader notices.
func linkAll(dir string) error {
	var here []written
	linked := true
	for _, name := range paired() {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read a file: %w", err)
		}
		here = append(here, written{name, content, Secret}) // turn gives it the mode that it has
		linked = linked && isLinked(dir, name)
	}
	if linked {
		return nil
	}
	if err := turn(dir, here); err != nil {
		return err
	}
	return makeLinks(dir, here)
}

// turn writes files into a folder of their own, which the link then leads to.
func turn(dir string, files []written) error {
	pair, err := os.MkdirTemp(dir, pairPrefix)
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	for _, f := range files {
		mode := f.mode
		like := filepath.Join(dir, f.name)
		if info, err := os.Stat(like); err == nil {
			mode = info.Mode().Perm()
		} else {
			like = filepath.Join(dir, CertFile)
		}
		path := filepath.Join(pair, f.name)
		if err := errors.Join(file.Replace(path, f.content, mode), giveTo(path, like)); err != nil {
			return errors.Join(err, os.RemoveAll(pair))
		}
	}
	if err := giveFolder(pair, dir); err != nil {
		return errors.Join(err, os.RemoveAll(pair))
	}
	return file.Link(filepath.Join(dir, currentLink), filepath.Base(pair))
}

// giveFolder lets in whom a folder lets in.
func giveFolder(path, like string) error {
	info, err := os.Stat(like)
	if err == nil {
		err = os.Chmod(path, info.Mode().Perm())
	}
	if err != nil {
		return fmt.Errorf("give %s the mode of %s: %w", path, like, err)
	}
	return giveTo(path, like)
}

// giveTo gives a file to the owner and the group of another: root renews what an application reads.
func giveTo(path, like string) error {
	is, err := ownerOf(path)
	if err != nil {
		return err
	}
	want, err := ownerOf(like)
	if errors.Is(err, fs.ErrNotExist) || err == nil && is == want {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Chown(path, want[0], want[1]); err != nil {
		return fault.Hinted(fmt.Errorf("give a file to the owner of %s: %w", like, err), "run it as the owner of the folder, or as root")
	}
	return nil
}

// ownerOf returns the user and the group that a file is of.
func ownerOf(path string) (owner [2]int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return owner, fmt.Errorf("look at %s: %w", path, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner, fmt.Errorf("look at %s: the system does not say whose it is", path)
	}
	return [2]int{int(stat.Uid), int(stat.Gid)}, nil
}

// makeLinks gives the files their names in the client's folder.
func makeLinks(dir string, files []written) error {
	for _, f := range files {
		if err := file.Link(filepath.Join(dir, f.name), filepath.Join(currentLink, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// removeDangling takes away the names of what the new certificate was not written as: an earlier
// key must not look like its own.
func removeDangling(dir string) error {
	var failed []error
	for _, name := range paired() {
		if path := filepath.Join(dir, name); !file.Exist(path) {
			failed = append(failed, file.Remove(path))
		}
	}
	return errors.Join(failed...)
}

// removePairs removes all earlier pairs but one: who has found it just now still reads it.
func removePairs(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look through a folder: %w", err)
	}
	current := filepath.Base(Current(dir))
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, pairPrefix) && name != current && name != keep {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("remove an earlier certificate: %w", err)
			}
		}
	}
	return nil
}
