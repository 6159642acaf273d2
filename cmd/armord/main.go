package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/cmd/armord/config"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "devel"

func main() {
	// The first signal asks for an orderly end; once it was taken the default
	// action is back, so that the second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, command(), os.Args[1:]))
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(root.ErrOrStderr(), "armord: %v\n", err)
	}
	return exitCode(err)
}

// exitCode is one of those that docs/operate.md lists.
func exitCode(err error) int {
	usage := (*config.Mistake)(nil)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return 2
	case errors.Is(err, cluster.ErrDamaged):
		return 3
	case errors.Is(err, cluster.ErrDiverged):
		return 4
	case errors.Is(err, cluster.ErrForgot):
		return 5
	case errors.Is(err, cluster.ErrCopy):
		return 6
	default:
		return 1
	}
}

// command is the whole command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "armord",
		Short:         "the mutual-TLS door, the pooler and the cluster member of Armor",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &config.Mistake{Err: err} })
	root.AddCommand(runCommand(), healthCommand(), recoverCommand(), devCommand(), configCommand(), versionCommand())
	return root
}
