package armor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// grounds is a configuration of pools, each of a database of its own with role rw.
func grounds(databases ...armor.Database) *armor.State {
	s := &armor.State{}
	for _, d := range databases {
		if d.Environment == "" {
			d.Environment = "production"
		}
		d.Roles = []armor.RoleAuth{{Role: "rw"}, {Role: "ro"}}
		armor.Databases.Put(s, d)
		p := armor.Pool{Name: d.Name, Environment: d.Environment, Database: d.Name, Budget: 12}
		if armor.IsTemplate(d.Name) {
			p.Name = "any"
		}
		armor.Pools.Put(s, p)
		armor.Identities.Put(s, armor.IdentityConfig{Name: p.Name, Environment: d.Environment, Grants: []armor.Grant{
			{Database: d.Name, Pool: p.Name, Roles: []string{"rw"}},
		}})
	}
	return s
}

func on(name, dbname string, hosts ...string) armor.Database {
	return armor.Database{Name: name, DBName: dbname, Hosts: hosts}
}

func as(d armor.Database, attrs armor.SessionAttrs) armor.Database {
	d.TargetSessionAttrs = attrs
	return d
}

func in(d armor.Database, environment string) armor.Database {
	d.Environment = environment
	return d
}

// TestPoolsThatMeetAreRefused, however their hosts are written, and no others.
func TestPoolsThatMeetAreRefused(t *testing.T) {
	a := on("a", "app", "pg1:5432", "pg2:5432")
	for name, c := range map[string]struct {
		other armor.Database
		meets bool
	}{
		"the same":                       {on("b", "app", "pg1:5432", "pg2:5432"), true},
		"another order":                  {on("b", "app", "pg2:5432", "pg1:5432"), true},
		"one host of two":                {on("b", "app", "pg2:5432"), true},
		"another spelling":               {on("b", "app", "PG1.:05432"), true},
		"another environment":            {in(on("b", "app", "pg1:5432"), "staging"), true},
		"the template":                   {on("*", "", "pg1:5432"), true},
		"another database":               {on("b", "other", "pg1:5432"), false},
		"another port":                   {on("b", "app", "pg1:5433"), false},
		"another host":                   {on("b", "app", "pg3:5432"), false},
		"the template of another server": {on("*", "", "pg3:5432"), false},
	} {
		before := grounds(a)
		err := grounds(a, c.other).CheckBudgets(before)
		if c.meets != errors.Is(err, armor.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		if c.meets && !strings.Contains(err.Error(), "12 + 12") {
			t.Errorf("%s: it does not say what PostgreSQL would see: %v", name, err)
		}
		if err := grounds(a, c.other).CheckBudgets(grounds(a, c.other)); err != nil {
			t.Errorf("%s: what met before may go on: %v", name, err)
		}
	}
}

func TestSpellingsOfAnAddressAreOneHost(t *testing.T) {
	for _, pair := range [][2]string{
		{"[::1]:5432", "[0:0:0:0:0:0:0:1]:5432"}, {"[::ffff:192.0.2.1]:5432", "192.0.2.1:5432"},
		{"/run/postgresql:5432", "/run/../run/postgresql/:5432"},
	} {
		a, b := on("a", "app", pair[0]), on("b", "app", pair[1])
		if err := grounds(a, b).CheckBudgets(grounds(a)); !errors.Is(err, armor.ErrConflict) {
			t.Errorf("%s: %v", pair, err)
		}
	}
}

// TestAPrimaryAndAStandbyAreNeverOneHost: so a pool for writing and one for reading share a list
// of hosts; but a standby that is only preferred may be the primary.
func TestAPrimaryAndAStandbyAreNeverOneHost(t *testing.T) {
	writes := as(on("a", "app", "pg1:5432", "pg2:5432"), armor.ReadWrite)
	if err := grounds(writes, as(on("b", "app", "pg1:5432", "pg2:5432"), armor.Standby)).CheckBudgets(grounds(writes)); err != nil {
		t.Error(err)
	}
	preferred := as(on("b", "app", "pg1:5432", "pg2:5432"), armor.PreferStandby)
	if err := grounds(writes, preferred).CheckBudgets(grounds(writes)); !errors.Is(err, armor.ErrConflict) {
		t.Error(err)
	}
	apart := grounds(writes, as(preferred, armor.Standby))
	if err := grounds(writes, preferred).CheckBudgets(apart); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a choice of hosts that changes: %v", err)
	}
}

// TestTheTemplateOpensNoListedDatabase, but it does open a server's database that is listed
// under another name.
func TestTheTemplateOpensNoListedDatabase(t *testing.T) {
	listed, renamed, template := on("app", "app", "pg1:5432"), on("orders", "app", "pg1:5432"), on("*", "", "pg1:5432")
	if err := grounds(listed, template).CheckBudgets(grounds(listed)); err != nil {
		t.Error(err)
	}
	for _, before := range []armor.Database{renamed, template} {
		if err := grounds(renamed, template).CheckBudgets(grounds(before)); !errors.Is(err, armor.ErrConflict) {
			t.Errorf("%s was there: %v", before.Name, err)
		}
	}
}

// TestAGrantMayBeWhatMeets: a pool leads to the roles that somebody is granted there.
func TestAGrantMayBeWhatMeets(t *testing.T) {
	a, b := on("a", "app", "pg1:5432"), on("b", "app", "pg1:5432")
	apart := grounds(a, b)
	grant := func(s *armor.State, roles ...string) *armor.State {
		armor.Identities.Put(s, armor.IdentityConfig{Name: "b", Environment: "production", Grants: []armor.Grant{
			{Database: "b", Pool: "b", Roles: roles},
		}})
		return s
	}
	grant(apart, "ro")
	if err := apart.CheckBudgets(grounds(a)); err != nil {
		t.Errorf("another role: %v", err)
	}
	if err := grant(grounds(a, b), "ro", "rw").CheckBudgets(apart); !errors.Is(err, armor.ErrConflict) {
		t.Errorf("a grant of the same role: %v", err)
	}
}
