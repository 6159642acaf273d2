package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

func (a *app) contextCommand() *cobra.Command {
	return group("context", "choose among the clusters that you operate",
		a.contextListCommand(), a.contextUseCommand(), a.contextShowCommand(), a.contextAddCommand(), a.contextSetCommand(), a.contextRemoveCommand())
}

// contextView is a context as -o json shows it.
type contextView struct {
	clusterAccess
	Current bool `json:"current"`
}

func (a *app) contextListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the contexts", Example: "  armorctl context list",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := a.loadContexts()
			if err != nil {
				return err
			}
			views := []contextView{}
			t := table{columns: []string{"current", "name", "cluster", "operator"}, wide: []string{"addresses"}, empty: "no contexts in " + f.path}
			for _, c := range f.Contexts {
				views = append(views, contextView{c, c.Name == f.Current})
				t.row(mark(c.Name == f.Current), c.Name, c.Cluster, c.Operator, strings.Join(c.Addresses, ","))
			}
			return a.show(answer{data: views, tables: []table{t}})
		},
	}
}

func mark(yes bool) string {
	if yes {
		return "*"
	}
	return ""
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "make a context the current one", Example: "  armorctl context use staging",
		Args: exactly("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.loadContexts()
			if err != nil {
				return err
			}
			if _, found := f.find(args[0]); !found {
				return fault.Hinted(fmt.Errorf("%w: there is no context %q", armor.ErrNotFound, args[0]), "armorctl context list")
			}
			f.Current = args[0]
			if err := f.save(); err != nil {
				return err
			}
			a.say("context %s is in use", args[0])
			return nil
		},
	}
}

func (a *app) contextShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "show a context, the current one by default", Example: "  armorctl context show",
		Args: atMost("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				a.globals.context = args[0]
			}
			f, c, err := a.chosen()
			if err != nil {
				return err
			}
			return a.show(answer{data: contextView{c, c.Name == f.Current}, tables: []table{facts("",
				[2]string{"name", c.Name}, [2]string{"cluster", c.Cluster}, [2]string{"cluster id", c.ClusterID},
				[2]string{"operator", c.Operator}, [2]string{"addresses", strings.Join(c.Addresses, ", ")}, [2]string{"members", strings.Join(c.Members, ", ")},
				[2]string{"certificate", c.CertFile}, [2]string{"key", c.KeyFile},
				[2]string{"peer CA", c.PeerCAFile}, [2]string{"server CA", c.ServerCAFile},
			)}})
		},
	}
}

func (a *app) contextAddCommand() *cobra.Command {
	var c clusterAccess
	cmd := &cobra.Command{
		Use:     "add NAME --cert FILE --key FILE --peer-ca FILE --addr ADDRESS",
		Short:   "add a context from an operator's certificate",
		Long:    "Adds a context. Cluster and operator are read from the certificate.",
		Example: "  armorctl context add prod --addr db1:6433 --addr db2:6433 --cert ann.crt --key ann.key --peer-ca peer-ca.crt",
		Args:    exactly("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			c.Name, c.Addresses = args[0], a.globals.addresses
			return a.addContext(c)
		},
	}
	c.fileFlags(cmd)
	cmd.Flags().StringVar(&c.Cluster, "cluster", "", "the cluster's name, when it is not spelt as in the certificate")
	return cmd
}

func (a *app) addContext(c clusterAccess) error {
	for _, required := range [][2]string{{"--cert", c.CertFile}, {"--key", c.KeyFile}, {"--peer-ca", c.PeerCAFile},
		{"--addr", strings.Join(c.Addresses, "")}} {
		if required[1] == "" {
			return &fault.Usage{Err: fmt.Errorf("context add needs %s", required[0])}
		}
	}
	f, err := a.loadContexts()
	if err != nil {
		return err
	}
	if err := c.describe(); err != nil {
		return err
	}
	client, err := c.open(a.now())
	if err != nil {
		return err
	}
	if err := client.Close(); err != nil {
		return err
	}
	if err := f.put(c); err != nil {
		return err
	}
	if err := f.save(); err != nil {
		return err
	}
	a.say("context %s added to %s", c.Name, f.path)
	return nil
}

func (a *app) contextSetCommand() *cobra.Command {
	var changes clusterAccess
	cmd := &cobra.Command{
		Use: "set NAME", Short: "change a context's addresses or files",
		Long:    "Changes what the flags name of a context, and nothing else. Its members' addresses are learned from every answer.",
		Example: "  armorctl context set prod --addr db4:6433 --cert ann-2.crt --key ann-2.key", Args: exactly("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			changes.Addresses = a.globals.addresses
			return a.setContext(args[0], changes)
		},
	}
	changes.fileFlags(cmd)
	return cmd
}

// fileFlags are the files of a context.
func (c *clusterAccess) fileFlags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&c.CertFile, "cert", "", "the operator's certificate, a PEM `FILE`")
	fl.StringVar(&c.KeyFile, "key", "", "its key, a PEM `FILE` of mode 0600")
	fl.StringVar(&c.PeerCAFile, "peer-ca", "", "the CA of nodes and operators, a PEM `FILE`")
	fl.StringVar(&c.ServerCAFile, "server-ca", "", "the CA that clients verify the nodes with, a PEM `FILE`")
}

func (a *app) setContext(name string, changes clusterAccess) error {
	f, err := a.loadContexts()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.Contexts, func(c clusterAccess) bool { return c.Name == name })
	if i < 0 {
		return fault.Hinted(fmt.Errorf("%w: there is no context %q", armor.ErrNotFound, name), "armorctl context list")
	}
	c, changed := f.Contexts[i], len(changes.Addresses) > 0
	if changed {
		c.Addresses, c.Members = changes.Addresses, nil
	}
	for _, field := range []struct{ to, from *string }{
		{&c.CertFile, &changes.CertFile}, {&c.KeyFile, &changes.KeyFile},
		{&c.PeerCAFile, &changes.PeerCAFile}, {&c.ServerCAFile, &changes.ServerCAFile},
	} {
		if *field.to = f.in(*field.to); *field.from != "" {
			*field.to, changed = *field.from, true
		}
	}
	if !changed {
		return &fault.Usage{Err: errors.New("context set needs --addr, --cert, --key, --peer-ca or --server-ca")}
	}
	if err := c.describe(); err != nil {
		return err
	}
	client, err := c.open(a.now())
	if err != nil {
		return err
	}
	if err := client.Close(); err != nil {
		return err
	}
	f.Contexts[i] = c
	if err := f.save(); err != nil {
		return err
	}
	a.say("context %s changed in %s", c.Name, f.path)
	return nil
}

// describe reads from the certificate who the operator is, and makes paths absolute.
func (c *clusterAccess) describe() error {
	for _, path := range []*string{&c.CertFile, &c.KeyFile, &c.PeerCAFile, &c.ServerCAFile} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("find %s: %w", *path, err)
		}
		*path = absolute
	}
	cert, err := issue.Certificate(c.CertFile)
	if err != nil {
		return err
	}
	id, err := pki.URIIdentity(cert)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", armor.ErrInvalid, c.CertFile, err)
	}
	cluster, _, name, err := pki.ParsePeerIdentity(id)
	if err != nil {
		return fmt.Errorf("%s: %w", c.CertFile, err)
	}
	if c.Cluster == "" {
		c.Cluster = cluster
	}
	c.Operator = name
	return nil
}

func (a *app) contextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "forget a context; its files stay", Example: "  armorctl context remove staging",
		Args: exactly("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.loadContexts()
			if err != nil {
				return err
			}
			if _, found := f.find(args[0]); !found {
				return fmt.Errorf("%w: there is no context %q", armor.ErrNotFound, args[0])
			}
			f.Contexts = slices.DeleteFunc(f.Contexts, func(c clusterAccess) bool { return c.Name == args[0] })
			if f.Current == args[0] {
				f.Current = ""
			}
			return f.save()
		},
	}
}
