package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armord/config"
)

// layout is the version of what lies in a folder of `armord dev`. Another version's
// folder is refused, not converted.
const layout = 1

// folder is DIR: keys, node folders and what clients need.
type folder struct {
	path string
	lock *os.File
	mark mark
}

// mark is DIR/dev.yaml. It says whose folder it is, and what a resumed cluster
// must not lose.
type mark struct {
	Layout int    `yaml:"layout"`
	Nodes  int    `yaml:"nodes"`
	Port   int    `yaml:"port"`   // of the balancer, once chosen
	Server string `yaml:"server"` // role@host/database
	Made   bool   `yaml:"made"`   // the cluster was created to the end
}

func (d *folder) in(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

func (d *folder) node(k int) string { return d.in(nodeName(k)) }

func nodeName(k int) string { return "n" + strconv.Itoa(k) }

// openFolder makes the folder or takes up an earlier one, and locks it until close.
func openFolder(path string, nodes int, server string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	d := &folder{path: path}
	if err := d.claim(); err != nil {
		return nil, fmt.Errorf("folder %s: %w", path, err)
	}
	if err := d.resume(nodes, server); err != nil {
		return nil, fmt.Errorf("folder %s: %w", path, errors.Join(err, d.close()))
	}
	return d, nil
}

func (d *folder) close() error { return d.lock.Close() }

// claim checks that the folder is ours and takes its lock.
func (d *folder) claim() error {
	info, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Getuid() {
		return fmt.Errorf("%w: it belongs to user %d, and this is user %d", armor.ErrDenied, owner, os.Getuid())
	}
	if entries, err := os.ReadDir(d.path); err != nil {
		return err
	} else if len(entries) > 0 && !file.Exist(d.in("dev.lock")) {
		return fmt.Errorf("%w: it is not empty, and nothing in it is from armord dev: choose another with --dir", armor.ErrConflict)
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return err
	}
	d.lock, err = os.OpenFile(d.in("dev.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%w: another armord dev is running in it", armor.ErrConflict), d.lock.Close())
	}
	return nil
}

// resume reads the mark of an earlier start, or begins a new one.
func (d *folder) resume(nodes int, server string) error {
	source, err := os.ReadFile(d.in("dev.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		d.mark = mark{Layout: layout, Nodes: nodes, Server: server}
		return d.save()
	}
	if err != nil {
		return err
	}
	if err := config.Guard(func() error { return yaml.UnmarshalWithOptions(source, &d.mark, yaml.Strict()) }); err != nil {
		return fmt.Errorf("%w: dev.yaml: %s", armor.ErrInvalid, yaml.FormatError(err, false, true))
	}
	switch m := d.mark; {
	case m.Layout != layout:
		return fmt.Errorf("%w: it was made by another version (layout %d, this one writes %d): remove it, or choose another with --dir",
			armor.ErrConflict, m.Layout, layout)
	case !m.Made:
		return fmt.Errorf("%w: an earlier start in it did not finish: remove it, or choose another with --dir", armor.ErrConflict)
	case m.Nodes != nodes:
		return fmt.Errorf("%w: it holds a cluster of %d nodes, not %d: give --nodes %d, or choose another with --dir", armor.ErrConflict,
			m.Nodes, nodes, m.Nodes)
	case m.Server != server:
		return fmt.Errorf("%w: its cluster serves %s, not %s: remove it, or choose another with --dir", armor.ErrConflict, m.Server, server)
	}
	return nil
}

func (d *folder) save() error {
	text, err := yaml.Marshal(d.mark)
	if err != nil {
		return err
	}
	return file.Replace(d.in("dev.yaml"), text, 0o600)
}

// environ is DIR/env in order: what a shell needs to be a client and an operator.
type environ [][2]string

func (d *folder) writeEnv(e environ) error {
	var b strings.Builder
	for _, v := range e {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	return file.Replace(d.in("env"), []byte(b.String()), 0o600)
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
