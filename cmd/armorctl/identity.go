package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
)

func (a *app) identityCommand() *cobra.Command {
	return group("identity", "the identities that may reach databases; apply changes them", a.identityListCommand(), a.identityShowCommand())
}

// identityView is an Identity object as -o json shows it.
type identityView struct {
	Name        string      `json:"name"`
	Environment string      `json:"environment"`
	ID          string      `json:"id"`
	Owner       string      `json:"owner"`
	Contact     string      `json:"contact,omitempty"`
	Grants      []grantView `json:"grants"`
	// Certificates are the registered ones that are valid; only show has them.
	Certificates []certView `json:"certificates,omitempty"`
}

type grantView struct {
	Database string   `json:"database"`
	Roles    []string `json:"roles"`
	Pool     string   `json:"pool"`
	CIDRs    []string `json:"cidrs"` // empty: from anywhere
	// SecondFactor is asked for beside the certificate.
	SecondFactor armor.SecondFactor `json:"secondFactor,omitempty"`
	// Replication says that replication connections are let in, too.
	Replication bool `json:"replication,omitempty"`
}

func viewOfIdentity(i armor.IdentityConfig) identityView {
	v := identityView{Name: i.Name, Environment: i.Environment, ID: string(i.ID), Owner: i.Owner, Contact: i.Contact, Grants: []grantView{}}
	for _, g := range i.Grants {
		v.Grants = append(v.Grants, grantView{Database: g.Database, Roles: g.Roles, Pool: g.Pool, CIDRs: prefixes(g.CIDRs),
			SecondFactor: g.SecondFactor, Replication: g.Replication})
	}
	return v
}

func prefixes(cidrs []netip.Prefix) []string {
	texts := []string{}
	for _, p := range cidrs {
		texts = append(texts, p.String())
	}
	return texts
}

func (a *app) identityListCommand() *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: "list", Short: "list the Identity objects", Example: "  armorctl identity list --environment production", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := a.fetch(cmd.Context(), armor.Identities)
			if err != nil {
				return err
			}
			views := []identityView{}
			t := table{columns: []string{"name", "environment", "id", "owner", "databases"}, wide: []string{"contact"}, empty: "no identities"}
			for i := range state.Identities.Values() {
				if environment != "" && i.Environment != environment {
					continue
				}
				v := viewOfIdentity(i)
				views = append(views, v)
				t.row(v.Name, v.Environment, v.ID, v.Owner, strings.Join(v.databases(), ","), v.Contact)
			}
			return a.show(answer{data: views, tables: []table{t}})
		},
	}
	cmd.Flags().StringVar(&environment, "environment", "", "only those of an `environment`")
	return cmd
}

func (v identityView) databases() []string {
	names := map[string]bool{}
	var all []string
	for _, g := range v.Grants {
		if !names[g.Database] {
			all = append(all, g.Database)
		}
		names[g.Database] = true
	}
	return all
}

func (a *app) identityShowCommand() *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: "show NAME|ID", Short: "show an identity: its grants and its certificates",
		Example: "  armorctl identity show checkout --environment production", Args: exactly("NAME or ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			about := armor.Question{Identities: args, Each: shownCerts}
			state, _, err := a.ask(cmd.Context(), about, append(certTables, armor.Identities)...)
			if err != nil {
				return err
			}
			object, err := findIdentity(state, args[0], environment)
			if err != nil {
				return err
			}
			return a.showIdentity(state, object)
		},
	}
	cmd.Flags().StringVar(&environment, "environment", "", "the `environment`, when several have one of that name")
	return cmd
}

// findIdentity finds an Identity object by its name or by its id.
func findIdentity(s *armor.State, word, environment string) (armor.IdentityConfig, error) {
	var found []armor.IdentityConfig
	for i := range s.Identities.Values() {
		if (i.Name == word || string(i.ID) == word || armor.ObjectKey(i.Environment, i.Name) == word) && (environment == "" || i.Environment == environment) {
			found = append(found, i)
		}
	}
	if len(found) > 1 {
		return armor.IdentityConfig{}, &fault.Usage{Err: fmt.Errorf("%d environments have an identity %q: say --environment", len(found), word)}
	}
	return onlyOne(found, "identity", word)
}

func (a *app) showIdentity(s *armor.State, object armor.IdentityConfig) error {
	v := viewOfIdentity(object)
	head := facts("", [2]string{"identity", v.Name}, [2]string{"environment", v.Environment}, [2]string{"id", v.ID},
		[2]string{"owner", v.Owner}, [2]string{"contact", v.Contact})
	grants := table{columns: []string{"database", "roles", "pool", "from", "second factor", "replication"}, empty: "it may reach nothing"}
	for _, g := range v.Grants {
		grants.row(g.Database, strings.Join(g.Roles, ","), g.Pool, cmp.Or(strings.Join(g.CIDRs, ","), "anywhere"),
			cmp.Or(string(g.SecondFactor), "none"), yesNo(g.Replication))
	}
	certs := table{columns: []string{"certificate of", "serial", "expires", "state"}, wide: []string{"fingerprint"}}
	for _, r := range byExpiry(s) {
		if !speaksFor(s, object, r) {
			continue
		}
		c := viewOfCert(s, r, a.now())
		v.Certificates = append(v.Certificates, c)
		certs.row(c.Identity, shortSerial(c.Serial), relative(r.Certificate.NotAfter, a.now()), c.State, c.Fingerprint)
	}
	if len(v.Certificates) >= shownCerts {
		a.say("these end last; all of them: armorctl cert list --all --identity %s", v.ID)
	}
	return a.show(answer{data: v, tables: []table{head, grants, certs}})
}

// shownCerts is how many certificates of an identity are shown.
const shownCerts = 1000

// speaksFor reports whether the object is the one that grants the certificate's
// identity anything.
func speaksFor(s *armor.State, object armor.IdentityConfig, r armor.CertRecord) bool {
	i, found := s.IdentityFor(object.Environment, r.Certificate.Identity)
	return found && r.Environment == object.Environment && i.Name == object.Name
}

func (a *app) whoCanCommand() *cobra.Command {
	var role, environment string
	cmd := &cobra.Command{
		Use: "who-can DATABASE", Short: "list the identities that may reach a database",
		Example: "  armorctl who-can orders --role checkout_rw", Args: exactly("DATABASE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			about := armor.Question{Database: args[0]}
			state, _, err := a.ask(cmd.Context(), about, armor.Identities, armor.Databases, armor.Pools, armor.Revoked)
			if err != nil {
				return err
			}
			return a.whoCan(state, reach{database: args[0], role: role, environment: environment})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "only those that may use this `role`")
	cmd.Flags().StringVar(&environment, "environment", "", "only in this `environment`")
	return cmd
}

// reach is what who-can asks about.
type reach struct{ database, role, environment string }

// accessView is one way to reach a database.
type accessView struct {
	Environment string   `json:"environment"`
	Identity    string   `json:"identity"`
	ID          string   `json:"id"`
	Owner       string   `json:"owner"`
	Roles       []string `json:"roles"`
	Pool        string   `json:"pool"`
	CIDRs       []string `json:"cidrs"`
	// SecondFactor is asked for beside the certificate.
	SecondFactor armor.SecondFactor `json:"secondFactor,omitempty"`
	// Replication says that replication connections are let in, too.
	Replication bool `json:"replication,omitempty"`
	// Revoked says that the identity as a whole is revoked, so that the grant is void.
	Revoked bool `json:"revoked"`
}

func (a *app) whoCan(s *armor.State, asked reach) error {
	if !hasDatabase(s, asked) {
		return fault.Hinted(fmt.Errorf("%w: there is no database %q", armor.ErrNotFound, asked.database), "armorctl export lists the databases")
	}
	views := []accessView{}
	t := table{columns: []string{"environment", "identity", "id", "roles", "from", "pool", "owner"},
		wide: []string{"revoked", "second factor", "replication"}, empty: "nobody may"}
	for i := range s.Identities.Values() {
		for _, g := range i.Grants {
			if !asked.matches(s, i, g) {
				continue
			}
			v := accessView{
				Environment: i.Environment, Identity: i.Name, ID: string(i.ID), Owner: i.Owner,
				Roles: g.Roles, Pool: g.Pool, CIDRs: prefixes(g.CIDRs), Revoked: s.WholeIdentityRevoked(i.ID),
				SecondFactor: g.SecondFactor, Replication: g.Replication,
			}
			views = append(views, v)
			t.row(v.Environment, v.Identity, v.ID, strings.Join(v.Roles, ","), cmp.Or(strings.Join(v.CIDRs, ","), "anywhere"), v.Pool, v.Owner,
				yesNo(v.Revoked), cmp.Or(string(v.SecondFactor), "none"), yesNo(v.Replication))
			if v.Revoked {
				a.say("identity %s is revoked: its grants are void", v.Identity)
			}
		}
	}
	return a.show(answer{data: views, tables: []table{t}})
}

func hasDatabase(s *armor.State, asked reach) bool {
	if armor.IsConsole(asked.database) {
		return true
	}
	for d := range s.Databases.Values() {
		if d.Name == s.DatabaseFor(d.Environment, asked.database) && (asked.environment == "" || d.Environment == asked.environment) {
			return true
		}
	}
	return false
}

func (r reach) matches(s *armor.State, i armor.IdentityConfig, g armor.Grant) bool {
	return g.Database == s.DatabaseFor(i.Environment, r.database) &&
		(r.environment == "" || i.Environment == r.environment) &&
		(r.role == "" || slices.Contains(g.Roles, r.role)) &&
		(armor.IsConsole(g.Database) ||
			s.Databases.Has(armor.ObjectKey(i.Environment, g.Database)) && s.Pools.Has(armor.ObjectKey(i.Environment, g.Pool)))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
