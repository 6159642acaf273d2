package cluster

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// What ends a node for good: it does not come back by being started again. cmd/armord has
// an exit code for each, and docs/operate.md a section.
var (
	// ErrDamaged says that what this node's disk gave back is not what was written to it.
	ErrDamaged = errors.New("the data of this node is damaged")
	// ErrDiverged says that this node's history or state is not the cluster's.
	ErrDiverged = errors.New("this node has another state than the cluster")
	// ErrForgot says that this node's log is gone.
	ErrForgot = errors.New("this node has lost its log")
	// ErrCopy says that another process runs as this node.
	ErrCopy = errors.New("this node runs elsewhere")
)

// Where operators read how to go on.
const (
	seeDamaged  = `replace the node (armorctl node replace): docs/operate.md, "A node that ends for good"`
	seeDiverged = `keep its data directory for a report, and replace the node (armorctl node replace): docs/operate.md, "A node that ends for good"`
	seeCopy     = `remove the copy; a machine more joins under a name of its own (armorctl join-token create), and one that takes this ` +
		`node's place with an empty data directory (armorctl node replace)`
)

// damaged says which file is damaged and how to go on.
func damaged(file, what string) error {
	return fmt.Errorf("%w: %s, in %s: %s", ErrDamaged, what, file, seeDamaged)
}

// unreadable is what a library that reads files panicked with, or the fault of a page
// that the kernel could not read.
type unreadable struct{ panicked any }

func (u *unreadable) Error() string { return fmt.Sprint(u.panicked) }

// guarded turns a panic over what a file holds into an error. The library behind the log
// maps its file into memory and trusts what it finds there, so that a damaged page is a
// panic, and one that the disk cannot read a fault. Nothing of ours runs in do.
func guarded(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &unreadable{p}
		}
	}()
	return do()
}
