package manifest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

const planned = `apiVersion: armor/v1
kind: Environment
metadata: {name: production}
---
apiVersion: armor/v1
kind: Environment
metadata: {name: staging}
---
apiVersion: armor/v1
kind: Database
metadata: {name: orders, environment: production}
spec: {hosts: ["pg1:5432"], dbname: orders, tls: {mode: require}, auth: {roles: {rw: {}}}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: orders, environment: production}
spec: {database: orders, mode: transaction, budget: 40}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: checkout, environment: production}
spec: {id: spiffe://td/checkout, grants: [{database: orders, roles: [rw], pool: orders}]}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: billing, environment: production}
spec: {id: spiffe://td/billing}
`

// stateWithAnchor is what planned says, with a trust anchor in production.
func stateWithAnchor(t *testing.T) *armor.State {
	s := &armor.State{Revision: 7}
	set := parse(t, planned)
	armor.Environments.Put(s, set.Environments...)
	armor.Databases.Put(s, set.Databases...)
	armor.Pools.Put(s, set.Pools...)
	armor.Identities.Put(s, set.Identities...)
	armor.Anchors.Put(s, armor.TrustAnchor{Name: "ca", Environment: "production", Prefix: "spiffe://td/*"})
	return s
}

func one(kind, name, environment, spec string) string {
	return "apiVersion: armor/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", environment: " + environment + "}\nspec: " + spec + "\n"
}

func ref(kind, name string) armor.ObjectRef {
	if kind == armor.KindEnvironment {
		return armor.ObjectRef{Kind: kind, Name: name}
	}
	return armor.ObjectRef{Kind: kind, Environment: "production", Name: name}
}

// TestPlanRefusesWhatTheMachineRefuses: a pipeline that gates on a plan is not surprised
// by apply.
func TestPlanRefusesWhatTheMachineRefuses(t *testing.T) {
	database := `{hosts: ["pg1:5432"], dbname: d, tls: {mode: require}}`
	cases := []struct {
		name, text string
		deletes    []armor.ObjectRef
		kind       error
		message    string
	}{
		{name: "a pool of no database", text: one("Pool", "nowhere", "production", "{database: nosuch, mode: transaction, budget: 40}"),
			kind: armor.ErrInvalid, message: "pool production/nowhere refers to database production/nosuch, which does not exist"},
		{name: "a pool of another environment's database", text: one("Pool", "p", "staging", "{database: orders, mode: session, budget: 1}"),
			kind: armor.ErrInvalid, message: "database staging/orders"},
		{name: "a database nowhere", text: one("Database", "d", "nowhere", database),
			kind: armor.ErrInvalid, message: "database nowhere/d refers to environment nowhere"},
		{name: "a grant of no pool",
			text: one("Identity", "i", "production", "{id: spiffe://td/i, grants: [{database: orders, roles: [rw], pool: none}]}"),
			kind: armor.ErrInvalid, message: "pool production/none"},
		{name: "a role without a credential",
			text: one("Identity", "i", "production", "{id: spiffe://td/i, grants: [{database: orders, roles: [ro], pool: orders}]}"),
			kind: armor.ErrInvalid, message: `role "ro"`},
		{name: "a password that nothing checks",
			text: one("Identity", "i", "production",
				"{id: spiffe://td/i, grants: [{database: orders, roles: [rw], pool: orders, secondFactor: scram}]}"),
			kind: armor.ErrInvalid, message: "names no verifiers"},
		{name: "a credential taken away", text: one("Database", "orders", "production", database),
			kind: armor.ErrInvalid, message: "identity production/checkout is granted role"},
		{name: "an id that is spoken for", text: one("Identity", "other", "production", "{id: spiffe://td/checkout}"),
			kind: armor.ErrConflict, message: "identity production/other: conflict: identity checkout"},
		{name: "an id that nobody may vouch for", text: one("Identity", "i", "production", "{id: spiffe://elsewhere/i}"),
			kind: armor.ErrInvalid, message: "no trust anchor"},
		{name: "a database in use", deletes: []armor.ObjectRef{ref("Database", "orders")},
			kind: armor.ErrConflict, message: "database production/orders is in use by pool production/orders"},
		{name: "a pool in use", deletes: []armor.ObjectRef{ref("Pool", "orders")},
			kind: armor.ErrConflict, message: "in use by identity production/checkout"},
		{name: "a second pool to one role of one database",
			text: one("Pool", "second", "production", "{database: orders, mode: session, budget: 5}") + "---\n" +
				one("Identity", "i", "production", "{id: spiffe://td/i, grants: [{database: orders, roles: [rw], pool: second}]}"),
			kind: armor.ErrConflict, message: "pools production/orders and production/second both lead to role rw of database"},
		{name: "an environment of an anchor", kind: armor.ErrConflict, message: "in use by trust anchor ca", deletes: []armor.ObjectRef{
			ref("Identity", "checkout"), ref("Identity", "billing"), ref("Pool", "orders"), ref("Database", "orders"),
			ref("Environment", "production"),
		}},
	}
	for _, c := range cases {
		_, _, err := manifest.Plan(stateWithAnchor(t), parse(t, c.text), c.deletes)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPlanTakesWhatTheMachineTakes(t *testing.T) {
	swapped := one("Identity", "checkout", "production", "{id: spiffe://td/billing}") + "---\n" +
		one("Identity", "billing", "production", "{id: spiffe://td/checkout}")
	taken := one("Identity", "other", "production", "{id: spiffe://td/checkout}")
	cases := []struct {
		name, text string
		deletes    []armor.ObjectRef
	}{
		{"two identities that swap their ids", swapped, nil},
		{"the id of one that goes", taken, []armor.ObjectRef{ref("Identity", "checkout")}},
		{"a pool and all that uses it", "", []armor.ObjectRef{ref("Pool", "orders"), ref("Identity", "checkout")}},
		{"an environment that is empty", "", []armor.ObjectRef{ref("Environment", "staging")}},
	}
	for _, c := range cases {
		s := stateWithAnchor(t)
		before := armor.Canonical(slices.Collect(s.Identities.Values()))
		if _, _, err := manifest.Plan(s, parse(t, c.text), c.deletes); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if string(armor.Canonical(slices.Collect(s.Identities.Values()))) != string(before) || s.Environments.Len() != 2 {
			t.Errorf("%s: the plan changed the state that it was made against", c.name)
		}
	}
}
