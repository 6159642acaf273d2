package saved

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// Folder is where one node of one cluster keeps the states that it saves. The names of its
// files say whose they are, so that no other file is taken for one, be it another node's or an
// earlier cluster's of the same name, and sort by revision.
type Folder struct {
	Dir     string
	Cluster string // its id
	Node    armor.NodeID
}

// Stored is a file of a Folder, as its name has it.
type Stored struct {
	Path     string
	Revision uint64
	At       time.Time
}

const (
	extension = ".snapshot"
	nameTime  = "20060102T150405Z"
)

var rest = regexp.MustCompile(`^([0-9]{20})-([0-9]{8}T[0-9]{6}Z)$`)

func (d Folder) prefix() string { return "armor-" + d.Cluster[:min(8, len(d.Cluster))] + "-" }

func (d Folder) suffix() string { return "-" + string(d.Node) + extension }

// Path is where a state is to be saved.
func (d Folder) Path(revision uint64, at time.Time) string {
	return filepath.Join(d.Dir, fmt.Sprintf("%s%020d-%s%s", d.prefix(), revision, at.UTC().Format(nameTime), d.suffix()))
}

// List returns the folder's files, the oldest revision first. A folder that is not there
// holds none.
func (d Folder) List() (all []Stored, err error) {
	entries, err := os.ReadDir(d.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if s, ours := d.parse(e.Name()); ours && e.Type().IsRegular() {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Stored) int { return strings.Compare(a.Path, b.Path) })
	return all, err
}

func (d Folder) parse(name string) (Stored, bool) {
	middle, ours := strings.CutPrefix(name, d.prefix())
	middle, ends := strings.CutSuffix(middle, d.suffix())
	parts := rest.FindStringSubmatch(middle)
	if !ours || !ends || parts == nil {
		return Stored{}, false
	}
	revision, err := strconv.ParseUint(parts[1], 10, 64)
	at, wrong := time.Parse(nameTime, parts[2])
	return Stored{filepath.Join(d.Dir, name), revision, at}, err == nil && wrong == nil
}

// Prune removes the oldest files but for the newest keep ones and that at just, which was
// written last and is known to be whole. It returns how many it has removed.
func (d Folder) Prune(keep int, just string) (removed int, err error) {
	all, err := d.List()
	if err != nil {
		return 0, err
	}
	surplus := len(all) - keep
	for _, s := range all {
		if surplus <= 0 {
			break
		}
		surplus--
		if s.Path == just {
			continue // of an earlier revision than others: it is kept beside them
		}
		if failed := os.Remove(s.Path); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		removed++
	}
	return removed, err
}

// Sweep removes what a crash has left of files that were being written. Nobody may be
// writing one.
func (d Folder) Sweep() error {
	entries, err := os.ReadDir(d.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+d.prefix()) && strings.Contains(e.Name(), d.suffix()+"-") && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(d.Dir, e.Name())))
		}
	}
	return err
}
