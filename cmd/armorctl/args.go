package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, and %q was given", cmd.CommandPath(), args[0])
	}
	return nil
}

// exactly demands one argument; name says what it is.
func exactly(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs exactly one %s, and got %d", cmd.CommandPath(), name, len(args))
		}
		return nil
	}
}

// atMost allows one argument.
func atMost(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%s takes at most one %s, and got %d", cmd.CommandPath(), name, len(args))
		}
		return nil
	}
}
