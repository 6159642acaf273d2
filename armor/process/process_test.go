package process_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/process"
)

// shell runs a script that is stopped at the end of the test.
func shell(t *testing.T, script, log string) *process.Process {
	t.Helper()
	p, err := process.Start(exec.Command("sh", "-c", script), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGKILL, 0) })
	return p
}

func TestOutputIsAppendedToTheLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for _, script := range []string{"echo one", "echo two >&2; exit 3"} {
		<-shell(t, script, log).Ended()
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "one\ntwo\n" {
		t.Errorf("log %q, %v", text, err)
	}
}

func TestEndIsTold(t *testing.T) {
	p := shell(t, "exit 3", "")
	if exit := (*exec.ExitError)(nil); !errors.As(p.Err(), &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v", p.Err())
	}
	if p.Alive() || p.Signal(syscall.SIGTERM) == nil {
		t.Error("what has ended still takes signals")
	}
	if err := p.Stop(syscall.SIGTERM, time.Minute); err != nil {
		t.Errorf("stop what has ended: %v", err)
	}
}

func TestStopAsksFirst(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p := shell(t, "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done", log)
	for {
		if text, _ := os.ReadFile(log); string(text) == "ready\n" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := p.Stop(syscall.SIGTERM, time.Minute); err != nil || p.Err() != nil {
		t.Errorf("stop: %v; it ended with %v", err, p.Err())
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p := shell(t, "trap '' TERM; while :; do sleep 0.01; done", "")
	if err := p.Stop(syscall.SIGTERM, 50*time.Millisecond); err != nil || p.Err() == nil {
		t.Errorf("stop: %v; it ended with %v", err, p.Err())
	}
}

// TestInputEndsWithUs: a child that reads its input waits while its parent lives, and
// ends with a parent that was killed.
func TestInputEndsWithUs(t *testing.T) {
	if mark := os.Getenv("PROCESS_TEST_MARK"); mark != "" { // we are the parent that is killed
		shell(t, "cat; touch "+mark, "")
		time.Sleep(time.Hour)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	parent := exec.Command(os.Args[0], "-test.run=TestInputEndsWithUs")
	parent.Env = append(os.Environ(), "PROCESS_TEST_MARK="+mark)
	p, err := process.Start(parent, "")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if _, err := os.Stat(mark); err == nil {
		t.Fatal("the input has ended before its parent")
	}
	p.Stop(syscall.SIGKILL, 0)
	for late := time.After(10 * time.Second); ; {
		if _, err := os.Stat(mark); err == nil {
			return
		}
		select {
		case <-late:
			t.Fatal("the child has not seen its parent end")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
