package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// versionView is the answer of version.
type versionView struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Example: "  armorctl version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionView{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return a.show(answer{data: v, tables: []table{{rows: [][]string{{fmt.Sprintf("armorctl %s (%s, %s/%s)", v.Version, v.Go, v.OS,
				v.Arch)}}}}})
		},
	}
}

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "print a completion script for bash, zsh, fish or powershell",
		Example: "  armorctl completion bash > /etc/bash_completion.d/armorctl", Args: exactly("SHELL"),
		RunE: func(_ *cobra.Command, args []string) error {
			write := map[string]func() error{
				"bash":       func() error { return root.GenBashCompletionV2(a.out, true) },
				"zsh":        func() error { return root.GenZshCompletion(a.out) },
				"fish":       func() error { return root.GenFishCompletion(a.out, true) },
				"powershell": func() error { return root.GenPowerShellCompletionWithDesc(a.out) },
			}[args[0]]
			if write == nil {
				return oneOf("SHELL", args[0], "bash", "zsh", "fish", "powershell")
			}
			return write()
		},
	}
}
