package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/chaos/bench"
)

// relayCommand is for `armor-chaos bench`, which runs it beside the poolers.
func relayCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "relay SOCKET",
		Short:  "pass bytes from a port to a Unix socket, and say the port",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Relay(cmd.Context(), args[0], func(port int) { fmt.Fprintln(cmd.OutOrStdout(), port) })
		},
	}
}
