// Package process starts programs and ends them: `armord dev` its nodes, the chaos runs
// everything that they break.
//
// It knows nothing of what the programs do; when one is ready is the caller's to find out.
//
// Invariant: every process that was started is waited for, and signals go to that process
// and to no other, also when its pid has long been another's.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Process is a child that was started.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once the process has been waited for
	err   error         // how it ended; read after ended
}

// Start starts cmd, with its output appended to the file log; without a log it goes where
// cmd says. Its standard input is a pipe into which nobody writes. The pipe ends when we
// do, however we end, so that a program which reads it can end, too.
func Start(cmd *exec.Cmd, log string) (*Process, error) {
	if log != "" {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("log of %s: %w", cmd.Path, err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if _, err := cmd.StdinPipe(); err != nil { // Wait closes it
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's number. After its end it may be another's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended and was waited for.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err waits for the end and says how it came: nil for exit code 0.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// Alive reports whether the process is still there.
func (p *Process) Alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Signal sends a signal; it fails when the process has ended.
func (p *Process) Signal(s os.Signal) error {
	if !p.Alive() {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(s)
}

// Stop asks the process to end, kills it when it has not within patience, and returns when
// it has. A process that has ended already is stopped.
func (p *Process) Stop(ask os.Signal, patience time.Duration) error {
	if err := p.Signal(ask); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.ended
	return nil
}
