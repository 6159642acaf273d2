package armor_test

import (
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// replicas is a state in which the client may replicate orders as walker, physically and
// logically, and audit as auditor; reports is granted for nothing but SQL.
func replicas() *armor.State {
	s := world()
	for _, name := range []string{"audit", "reports"} {
		s.Databases = s.Databases.With(armor.Database{Name: name, Environment: "production"})
		s.Pools = s.Pools.With(armor.Pool{Name: name, Environment: "production", Database: name, Budget: 4})
	}
	return withIdentity(s,
		armor.Grant{Database: "reports", Roles: []string{"walker", "both", "reader"}, Pool: "reports"},
		armor.Grant{Database: "orders", Roles: []string{"walker", "both"}, Pool: "orders", Replication: true},
		armor.Grant{Database: "audit", Roles: []string{"auditor", "both"}, Pool: "audit", Replication: true},
	)
}

func TestReplicationIsDeniedUnlessAGrantAllowsIt(t *testing.T) {
	for _, c := range []struct {
		database, role string
		kind           armor.Replication
		reaches        string // the database, or
		reason         armor.Reason
	}{
		{"orders", "walker", armor.NoReplication, "orders", ""},
		{"orders", "walker", armor.LogicalReplication, "orders", ""},
		{"orders", "walker", armor.PhysicalReplication, "orders", ""},
		{"reports", "walker", armor.LogicalReplication, "", armor.ReasonReplication},
		{"reports", "walker", armor.PhysicalReplication, "", armor.ReasonReplication},
		{"replication", "walker", armor.PhysicalReplication, "orders", ""},
		{"replication", "auditor", armor.PhysicalReplication, "audit", ""},
		{"replication", "both", armor.PhysicalReplication, "", armor.ReasonReplication}, // which of them?
		{"replication", "reader", armor.PhysicalReplication, "", armor.ReasonReplication},
		{"replication", "stranger", armor.PhysicalReplication, "", armor.ReasonReplication},
		{"replication", "walker", armor.LogicalReplication, "", armor.ReasonDatabase}, // a database like any other
		{"replication", "walker", armor.NoReplication, "", armor.ReasonDatabase},
		{"audit", "walker", armor.PhysicalReplication, "", armor.ReasonRole},
		{"nowhere", "walker", armor.PhysicalReplication, "", armor.ReasonDatabase},
		{"scratch", "walker", armor.LogicalReplication, "", armor.ReasonEnvironment},
		{armor.ConsoleDatabase, "admin", armor.PhysicalReplication, "", armor.ReasonDatabase},
	} {
		f := checkout()
		f.Database, f.Role, f.Replication = c.database, c.role, c.kind
		access, denial := replicas().Decide(f, noon)
		if denial != nil && denial.Reason != c.reason ||
			denial == nil && (c.reason != "" || access.Database.Name != c.reaches || access.Pool.Name != c.reaches) {
			t.Errorf("%+v: reaches %q, %v", c, access.Database.Name, denial)
		}
	}
}

func TestADatabaseCalledReplicationIsThatOne(t *testing.T) {
	s := replicas()
	s.Databases = s.Databases.With(armor.Database{Name: "replication", Environment: "production"})
	s.Pools = s.Pools.With(armor.Pool{Name: "replication", Environment: "production", Database: "replication", Budget: 4})
	i, _ := s.Identities.Get("production/checkout")
	s = withIdentity(s,
		append(i.Grants, armor.Grant{Database: "replication", Roles: []string{"both"}, Pool: "replication", Replication: true})...)
	f := checkout()
	f.Database, f.Role, f.Replication = "replication", "both", armor.PhysicalReplication
	if access, denial := s.Decide(f, noon); denial != nil || access.Database.Name != "replication" {
		t.Errorf("%+v, %v", access.Database, denial)
	}
}

// TestAReplicatingSessionEndsWithItsGrant: the session is judged again by what it is,
// while one that runs SQL by the same grant goes on.
func TestAReplicatingSessionEndsWithItsGrant(t *testing.T) {
	s := withIdentity(world(), armor.Grant{Database: "orders", Roles: []string{"walker"}, Pool: "orders"})
	f := checkout()
	f.Database, f.Role, f.LoggedIn = "orders", "walker", true
	if _, denial := s.Decide(f, noon); denial != nil {
		t.Errorf("SQL: %v", denial)
	}
	for _, f.Replication = range []armor.Replication{armor.PhysicalReplication, armor.LogicalReplication} {
		if _, denial := s.Decide(f, noon); denial == nil ||
			denial.Reason != armor.ReasonReplication || !strings.Contains(denial.Message, "walker") {
			t.Errorf("%s replication: %v", f.Replication, denial)
		}
	}
}

func TestTheConsoleHasNothingToReplicate(t *testing.T) {
	g := armor.Grant{Database: armor.ConsoleDatabase, Roles: []string{armor.ConsoleStats}, Replication: true}
	if err := g.Check(); err == nil {
		t.Error("it is taken")
	}
}
