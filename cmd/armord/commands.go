package main

import (
	"fmt"
	"runtime"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/cmd/armord/config"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "armord %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func configCommand() *cobra.Command {
	parent := &cobra.Command{
		Use: "config", Short: "check or show a node's configuration file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(
		configVerb("validate", "check the file and print nothing when it is right", func(*cobra.Command, config.Config) error { return nil }),
		configVerb("print", "print the configuration in force: the file, completed by the defaults", printConfig),
	)
	return parent
}

func configVerb(name, short string, do func(*cobra.Command, config.Config) error) *cobra.Command {
	cmd := &cobra.Command{Use: name + " --config FILE", Short: short, Args: noArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		return do(cmd, c)
	}
	return cmd
}

func printConfig(cmd *cobra.Command, c config.Config) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", "/etc/armor/armord.yaml", "the node's configuration `FILE`")
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return &config.Mistake{Err: err}
	}
	return nil
}
