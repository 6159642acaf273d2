package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

// connectOptions are the flags of connect.
type connectOptions struct {
	environment, database, role, cert, serverCA, print string
}

func (a *app) connectCommand() *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect IDENTITY [-- PSQL-ARGUMENTS]",
		Short: "run psql as an identity, or print how a driver connects",
		Long: `Runs psql with the certificate that armorctl cert issue wrote, through any node of the
cluster. With --print it runs nothing and prints the connection for a driver: env, url,
jdbc or libpq-service. Database and role are those that the identity is granted, when
it is granted only one.`,
		Example: "  armorctl connect checkout -- -c 'select current_user'\n  armorctl connect checkout --print jdbc",
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); len(args) == 0 || n == 0 || n < 0 && len(args) > 1 || n > 1 {
				return fmt.Errorf("%s needs exactly one IDENTITY, and psql's arguments behind --", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.connectAs(cmd.Context(), args[0], args[1:], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.environment, "environment", "", "the `environment`, when several have an identity of that name")
	f.StringVar(&o.database, "database", "", "the `database`")
	f.StringVar(&o.role, "role", "", "the `role`")
	f.StringVar(&o.cert, "cert", "", "`folder` of the certificate (default: where cert issue puts it without --out)")
	f.StringVar(&o.serverCA, "server-ca", "",
		"the CA that the nodes are verified with, a PEM `FILE` (default: the folder's ca.crt, else the context's)")
	f.StringVar(&o.print, "print", "", "print instead: `env`, url, jdbc or libpq-service")
	return cmd
}

func (a *app) connectAs(ctx context.Context, name string, psqlArgs []string, o connectOptions) error {
	if o.print != "" {
		if err := oneOf("--print", o.print, "env", "url", "jdbc", "libpq-service"); err != nil {
			return err
		}
	}
	t, err := a.target(ctx, name, o)
	if err != nil {
		return err
	}
	if o.print != "" {
		return a.showConnection(t, o.print)
	}
	return a.runPSQL(t, psqlArgs)
}

// target works out all that a client must know.
func (a *app) target(ctx context.Context, name string, o connectOptions) (target, error) {
	contexts, chosen, err := a.chosen()
	if err != nil {
		return target{}, err
	}
	t, err := a.place(ctx, name, o)
	if err != nil {
		return t, err
	}
	dir := o.cert
	if dir == "" {
		dir = certStore(contexts, chosen.Name, name)
	}
	return t.withFiles(dir, o.serverCA, chosen.ServerCAFile)
}

// place is where an identity connects, without the files that it needs for it.
func (a *app) place(ctx context.Context, name string, o connectOptions) (t target, err error) {
	state, err := a.fetch(ctx, armor.Members, armor.Identities, armor.Databases)
	if err != nil {
		return t, err
	}
	if t.Hosts = clientAddresses(state); len(t.Hosts) == 0 {
		return t, fmt.Errorf("%w: no node says where clients connect", armor.ErrNotFound)
	}
	t.Database, t.Role, err = o.grantOf(state, name)
	return t, err
}

func clientAddresses(s *armor.State) []string {
	var all []string
	for m := range s.Members.Values() {
		if m.ClientAddress != "" {
			all = append(all, m.ClientAddress)
		}
	}
	return all
}

// grantOf takes database and role from the identity's grants as far as the flags leave
// them open, and does not guess between two.
func (o connectOptions) grantOf(s *armor.State, name string) (database, role string, err error) {
	if o.database != "" && o.role != "" {
		return o.database, o.role, nil
	}
	object, err := identityNamed(s, name, o.environment)
	if err != nil {
		return "", "", err
	}
	type way struct{ database, role string }
	ways := map[way]bool{}
	asked := s.DatabaseFor(object.Environment, o.database)
	for _, g := range object.Grants {
		for _, r := range g.Roles {
			if o.database == "" && (armor.IsConsole(g.Database) || armor.IsTemplate(g.Database)) {
				continue // applications do not want the one, and the other names none
			}
			if (o.database == "" || g.Database == asked) && (o.role == "" || r == o.role) {
				ways[way{cmp.Or(o.database, g.Database), r}] = true
			}
		}
	}
	if len(ways) != 1 {
		return "", "", fault.Hinted(&fault.Usage{Err: fmt.Errorf("identity %s is granted %d ways that fit: say --database and --role",
			object.Name, len(ways))}, "armorctl identity show %s", object.Name)
	}
	for w := range ways {
		database, role = w.database, w.role
	}
	return database, role, nil
}

// identityNamed finds the Identity object by name, or the one that speaks for an id.
func identityNamed(s *armor.State, name, environment string) (armor.IdentityConfig, error) {
	if !strings.HasPrefix(name, "spiffe://") {
		return findIdentity(s, name, environment)
	}
	id, err := armor.ParseIdentity(name)
	if err != nil {
		return armor.IdentityConfig{}, err
	}
	var found []armor.IdentityConfig
	for i := range s.Identities.Values() {
		if speaks, ok := s.IdentityFor(i.Environment, id); ok && speaks.Name == i.Name && (environment == "" || environment == i.Environment) {
			found = append(found, i)
		}
	}
	return onlyOne(found, "identity", name)
}

// target is a connection as a driver makes it.
type target struct {
	Hosts     []string // host:port, tried in this order
	Database  string
	Role      string
	Cert, Key string // PEM files
	PKCS8     string // the key again, DER
	ServerCA  string
}

func (t target) withFiles(dir, flagCA, contextCA string) (target, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return t, fmt.Errorf("find %s: %w", dir, err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	t.Cert, t.Key, t.PKCS8 = in(issue.CertFile), in(issue.KeyFile), in(issue.PKCS8File)
	if !file.Exist(t.Cert) || !file.Exist(t.Key) {
		return t, fault.Hinted(fmt.Errorf("%w: %s holds no %s and %s", armor.ErrNotFound, dir, issue.CertFile, issue.KeyFile),
			"armorctl cert issue IDENTITY --ca DIR --out %s, or --cert DIR", dir)
	}
	for _, candidate := range []string{flagCA, in(issue.ServerCAFile), contextCA} {
		if candidate != "" && file.Exist(candidate) {
			t.ServerCA, err = filepath.Abs(candidate)
			return t, err
		}
	}
	return t, fault.Hinted(fmt.Errorf("%w: the CA that the nodes are verified with is not known", armor.ErrNotFound),
		"--server-ca FILE, or %s in %s", issue.ServerCAFile, dir)
}

// pinned reads the certificate and the key together, whoever renews them meanwhile.
func (t target) pinned() target {
	current := issue.Current(filepath.Dir(t.Cert))
	t.Cert, t.Key = filepath.Join(current, issue.CertFile), filepath.Join(current, issue.KeyFile)
	return t
}

// runPSQL becomes psql. It returns only when that is not possible.
func (a *app) runPSQL(t target, args []string) error {
	path, err := exec.LookPath("psql")
	if err != nil {
		return fault.Hinted(fmt.Errorf("find psql: %w", err), "install postgresql-client, or use --print")
	}
	environ := os.Environ()
	for _, v := range t.pinned().variables() {
		environ = append(environ, v[0]+"="+v[1])
	}
	if err := syscall.Exec(path, append([]string{"psql"}, args...), environ); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return errors.New("psql did not take over")
}

// hostsAndPorts are the lists that libpq takes (PGHOST, PGPORT).
func (t target) hostsAndPorts() (hosts, ports string) {
	var hs, ps []string
	for _, address := range t.Hosts {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = address, "5432"
		}
		hs, ps = append(hs, host), append(ps, port)
	}
	return strings.Join(hs, ","), strings.Join(ps, ",")
}
