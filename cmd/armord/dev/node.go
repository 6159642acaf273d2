package dev

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/process"
)

// nodeProcess is one node as a process of its own. It ends when its standard input
// does, which is when we end, however we end.
type nodeProcess struct {
	*process.Process
	name string
}

// startNode runs this same program as a node with the configuration in dir. Its
// output is appended to armord.log there, and its pid is written beside.
func startNode(program, name, dir string) (nodeProcess, error) {
	cmd := exec.Command(program, "run", "--config", filepath.Join(dir, "armord.yaml"), "--until-stdin-ends")
	// A terminal's ^C goes to the whole group; the order of the end is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p, err := process.Start(cmd, filepath.Join(dir, "armord.log"))
	if err != nil {
		return nodeProcess{}, fmt.Errorf("start node %s: %w", name, err)
	}
	if err := file.Replace(filepath.Join(dir, "armord.pid"), []byte(strconv.Itoa(p.PID())+"\n"), 0o600); err != nil {
		return nodeProcess{}, errors.Join(err, p.Stop(syscall.SIGKILL, 0))
	}
	return nodeProcess{p, name}, nil
}
