package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/armordb/armordb/armor/process"
)

// Node is one armord process, or the place of one that was killed.
type Node struct {
	Name string
	Port int // client port
	Dir  string

	mu      sync.Mutex // guards all below; never held while waiting
	process *process.Process
}

// running is the process that we have started last; nil if we have started none.
func (n *Node) running() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Signal sends a signal to the node's process; it fails when there is none.
func (n *Node) Signal(s os.Signal) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("%s is not running", n.Name)
	}
	return p.Signal(s)
}

// AwaitEnd waits until the process has ended and been reaped.
func (n *Node) AwaitEnd() {
	if p := n.running(); p != nil {
		<-p.Ended()
	}
}

// PID returns the node's process, whoever started it: we, or `armord dev`.
func (n *Node) PID() (int, error) {
	if p := n.running(); p != nil {
		return p.PID(), nil
	}
	path := filepath.Join(n.Dir, "armord.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return pid, nil
}
