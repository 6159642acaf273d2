package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor/file"
)

// nodeProcess is one node as a process of its own. It ends when its standard input
// does, which is when we end, however we end.
type nodeProcess struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed once the process has been waited for
	err   error         // how it ended; read after ended
}

// startNode runs this same program as a node with the configuration in dir. Its
// output is appended to armord.log there, and its pid is written beside.
func startNode(program, name, dir string) (*nodeProcess, error) {
	log, err := os.OpenFile(filepath.Join(dir, "armord.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of node %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(program, "run", "--config", filepath.Join(dir, "armord.yaml"), "--until-stdin-ends")
	cmd.Stdout, cmd.Stderr = log, log
	// A terminal's ^C goes to the whole group; the order of the end is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node %s: %w", name, err)
	}
	p := &nodeProcess{name: name, cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err := file.Replace(pidFile(dir), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, p.stop(0))
	}
	return p, nil
}

func pidFile(dir string) string { return filepath.Join(dir, "armord.pid") }

// stop asks the node to end and kills it when it has not within patience. It returns
// how it ended.
func (p *nodeProcess) stop(patience time.Duration) error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.ended
	}
	p.stdin.Close()
	return p.err
}

// alive reports whether the process is still there.
func (p *nodeProcess) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}
