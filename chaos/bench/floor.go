package bench

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor/process"
)

// relaySource is the relay in C. Go's costs the same where there is no compiler.
//
//go:embed relay/relay.c
var relaySource []byte

// relays starts the floor: no TLS, no pool.
func (b *comparison) relays(ctx context.Context, at setting) error {
	socket := filepath.Join(at.postgres.Dir, fmt.Sprintf(".s.PGSQL.%d", at.postgres.Port))
	inGo := exec.Command(filepath.Join(b.Bin, "armor-chaos"), "relay", socket)
	program, err := b.compileRelay(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		return b.relay(at, PlainRelay, inGo)
	}
	if err != nil {
		return err
	}
	if err := b.relay(at, PlainRelay, exec.Command(program, socket)); err != nil || !b.GoRelay {
		return err
	}
	return b.relay(at, GoRelay, inGo)
}

// compileRelay returns the program; the error is exec.ErrNotFound without a compiler.
func (b *comparison) compileRelay(ctx context.Context) (string, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return "", err
	}
	program := filepath.Join(b.Dir, "relay")
	if err := os.WriteFile(program+".c", relaySource, 0o644); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, compiler, "-O2", "-o", program, program+".c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the relay: %w: %s", err, out)
	}
	return program, nil
}

// relay starts one that says its port.
func (b *comparison) relay(at setting, name string, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p, err := process.Start(cmd, "")
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	b.ends = append(b.ends, func() error { return p.Stop(syscall.SIGINT, 10*time.Second) })
	var port int
	if _, err := fmt.Fscan(said, &port); err != nil {
		return fmt.Errorf("ask %s for its port: %w", name, err)
	}
	few := func(c Cell) bool { return c.idle == 0 && !c.several } // each would be a backend
	b.systems = append(b.systems, system{
		name: name, env: append(slices.Clone(at.env), "PGSSLMODE=disable", fmt.Sprintf("PGPORT=%d", port)), pid: p.PID, fits: few,
	})
	return nil
}
