package main

import (
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/cmd/armord/dev"
)

func devCommand() *cobra.Command {
	var o dev.Options
	cmd := &cobra.Command{
		Use:   "dev --postgres URL",
		Short: "run a whole cluster on this machine, for development",
		Long: `Runs a cluster of node processes on 127.0.0.1 in front of one PostgreSQL, with a
load-balancing port, an operator and an identity "demo" that may use the database
and role of the URL. DIR/env is for shells:

  . ./armor-dev/env && psql -c 'select current_user'

Keys lie unencrypted in DIR: this is for development. An interrupt stops all of it;
the next start with the same DIR takes it up again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return dev.Run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Postgres, "postgres", "", "`URL` of the PostgreSQL database, with the role that clients will have")
	f.IntVar(&o.Nodes, "nodes", 3, "how many nodes, 1 to 9")
	f.StringVar(&o.Dir, "dir", "./armor-dev", "the `folder` for keys, data and logs")
	f.IntVar(&o.Port, "port", 6432, "port of the load balancer; 0 chooses a free one")
	f.StringVar(&o.Apply, "apply", "", "cluster configuration `file` that adds to or overrides the generated one")
	return cmd
}
