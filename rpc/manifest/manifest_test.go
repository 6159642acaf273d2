package manifest_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

const whole = `# all kinds in one file
apiVersion: armor/v1
kind: Environment
metadata: {name: production}
spec: {inventory: required, maxLeafLifetime: 720h, freshness: {new: 4s, live: 12s}, cancel: tls-only}
---
apiVersion: armor/v1
kind: Database
metadata: {name: orders, environment: production}
spec:
  hosts: ["pg1:5432", "[::1]:5433"]
  targetSessionAttrs: read-write
  loadBalanceHosts: random
  dbname: orders_v2
  tls: {mode: verify-full, ca: {secret: pg-ca}}
  auth: {roles: {checkout_rw: {secret: orders-rw}, checkout_ro: {}}, exclusive: true, verifiers: {secret: apps}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: orders, environment: production}
spec: {database: orders, mode: transaction, budget: 40}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: limits, environment: production}
spec:
  database: orders
  mode: session
  budget: 9
  queryWait: 7s
  queryWaitNotify: 0s
  serverLifetime: 2h
  serverIdle: 3m
  minSize: 4
  warmUp: true
  reserve: 2
  reserveAfter: 15s
  maxClients: 500
  onState: refuse
  isolation: always
  keepSettings: [app.tenant, app.user]
  maxPinned: 0
  maxPreparedStatements: 50
  connectQuery: SET app.pooled = 'yes'
  loginNotifyMessage: Be brief.
  clientIdle: 11s
  idleInTransaction: 12s
  queryTimeout: 13s
  transactionTimeout: 14s
---
apiVersion: armor/v1
kind: Identity
metadata: {name: checkout, environment: production}
spec:
  id: spiffe://production.acme.internal/app/checkout/*
  owner: team-payments
  contact: "#payments"
  maxConnections: 30
  grants:
  - {database: orders, roles: [checkout_rw], pool: orders, cidrs: [10.2.0.0/16, "fd00::/8"]}
  - {database: orders, roles: [checkout_ro], pool: orders, secondFactor: scram}
  - {database: orders, roles: [walker], pool: orders, replication: true}
---
apiVersion: armor/v1
kind: Database
metadata: {name: logins, environment: production}
spec:
  hosts: ["pg1:5432"]
  dbname: logins
  tls: {mode: verify-full, ca: {secret: pg-ca}}
  auth:
    roles:
      both: {secret: pw, certificate: {secret: armor}}
      cert: {certificate: {secret: armor}}
      looker: {secret: looker}
      old: {secret: old, allow: md5}
    query:
      role: looker
      statement: "SELECT usename, passwd FROM armor.user_lookup($1)"
`

func parse(t testing.TB, text string) manifest.Set {
	t.Helper()
	set, err := manifest.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if string(armor.Canonical(got)) != string(armor.Canonical(want)) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestEveryFieldIsRead(t *testing.T) {
	set := parse(t, whole)
	same(t, "environments", set.Environments, []armor.Environment{{
		Name: "production", Inventory: armor.InventoryRequired, MaxLeafLifetime: 720 * time.Hour,
		FreshNew: 4 * time.Second, FreshLive: 12 * time.Second, Cancel: armor.CancelTLSOnly,
	}})
	same(t, "databases", set.Databases, []armor.Database{{
		Name: "orders", Environment: "production", Hosts: []string{"pg1:5432", "[::1]:5433"}, DBName: "orders_v2",
		TLSMode: armor.TLSVerifyFull, CA: "pg-ca", Exclusive: true, Verifiers: "apps",
		TargetSessionAttrs: armor.ReadWrite, LoadBalanceHosts: armor.RandomHost,
		Roles: []armor.RoleAuth{{Role: "checkout_ro"}, {Role: "checkout_rw", Secret: "orders-rw"}},
	}, {
		Name: "logins", Environment: "production", Hosts: []string{"pg1:5432"}, DBName: "logins", TLSMode: armor.TLSVerifyFull, CA: "pg-ca",
		Roles: []armor.RoleAuth{
			{Role: "both", Secret: "pw", Certificate: "armor"}, {Role: "cert", Certificate: "armor"},
			{Role: "looker", Secret: "looker"}, {Role: "old", Secret: "old", MD5: true},
		},
		Query: armor.AuthQuery{Role: "looker", Statement: "SELECT usename, passwd FROM armor.user_lookup($1)"},
	}})
	same(t, "pools", set.Pools, []armor.Pool{{
		Name: "orders", Environment: "production", Database: "orders", Mode: armor.TransactionMode, Budget: 40, QueryWait: armor.DefaultQueryWait,
		QueryWaitNotify: 5 * time.Second, ServerLifetime: time.Hour, ServerIdle: 10 * time.Minute, OnState: armor.KeepState,
	}, {
		Name: "limits", Environment: "production", Database: "orders", Mode: armor.SessionMode, Budget: 9, QueryWait: 7 * time.Second,
		ServerLifetime: 2 * time.Hour, ServerIdle: 3 * time.Minute, MinSize: 4, WarmUp: true, Reserve: 2,
		ReserveAfter: 15 * time.Second, MaxClients: 500, OnState: armor.RefuseState, Isolation: armor.IsolatedClients,
		KeepSettings: []string{"app.tenant", "app.user"}, MaxPinned: armor.NoPins, MaxPreparedStatements: 50,
		ConnectQuery: "SET app.pooled = 'yes'", LoginNotifyMessage: "Be brief.",
		ClientIdle: 11 * time.Second, IdleInTransaction: 12 * time.Second, QueryTimeout: 13 * time.Second, TransactionTimeout: 14 * time.Second,
	}})
	same(t, "identities", set.Identities, []armor.IdentityConfig{{
		Name: "checkout", Environment: "production", ID: "spiffe://production.acme.internal/app/checkout/*",
		Owner: "team-payments", Contact: "#payments", MaxConnections: 30,
		Grants: []armor.Grant{
			{
				Database: "orders", Roles: []string{"checkout_rw"}, Pool: "orders",
				CIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00::/8")},
			},
			{Database: "orders", Roles: []string{"checkout_ro"}, Pool: "orders", SecondFactor: armor.SCRAM},
			{Database: "orders", Roles: []string{"walker"}, Pool: "orders", Replication: true},
		},
	}})
}

// TestDefaultsMayBeWritten: what libpq calls the default is no change.
func TestDefaultsMayBeWritten(t *testing.T) {
	with := strings.Replace(whole, "targetSessionAttrs: read-write\n  loadBalanceHosts: random",
		"targetSessionAttrs: any\n  loadBalanceHosts: disable", 1)
	without := strings.Replace(whole, "  targetSessionAttrs: read-write\n  loadBalanceHosts: random\n", "", 1)
	same(t, "databases", parse(t, with).Databases, parse(t, without).Databases)
	with, without = strings.Replace(whole, "cancel: tls-only", "cancel: any", 1), strings.Replace(whole, ", cancel: tls-only", "", 1)
	same(t, "environments", parse(t, with).Environments, parse(t, without).Environments)
}

func TestObjectsAreWrittenOnce(t *testing.T) {
	twice := whole + "---\n" + strings.Split(whole, "---\n")[2]
	if _, err := manifest.Parse("f.yaml", []byte(twice)); err == nil || !strings.Contains(err.Error(), "written twice") {
		t.Errorf("twice in a file: %v", err)
	}
	a, b := parse(t, whole), parse(t, strings.Split(whole, "---\n")[2])
	if _, err := a.Merge(b); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("twice in two files: %v", err)
	}
	var none manifest.Set
	merged, err := none.Merge(a)
	if err != nil || objectsIn(merged) != objectsIn(a) {
		t.Errorf("merged %d of %d: %v", objectsIn(merged), objectsIn(a), err)
	}
}

// stateOf holds what a set says.
func stateOf(set manifest.Set) *armor.State {
	s := &armor.State{Revision: 7}
	for _, e := range set.Environments {
		s.Environments = s.Environments.With(e)
	}
	for _, d := range set.Databases {
		s.Databases = s.Databases.With(d)
	}
	for _, p := range set.Pools {
		s.Pools = s.Pools.With(p)
	}
	for _, i := range set.Identities {
		s.Identities = s.Identities.With(i)
	}
	return s
}

func TestPlanNamesTheFieldsThatDiffer(t *testing.T) {
	kept, spare, _ := strings.Cut(whole, "---\napiVersion: armor/v1\nkind: Database\nmetadata: {name: logins")
	kept = strings.Replace(kept, "checkout_ro: {}", "checkout_ro: {}, walker: {}, admin: {}", 1)
	state := stateOf(parse(t, kept+"---\napiVersion: armor/v1\nkind: Database\nmetadata: {name: logins"+spare))
	changed := strings.Replace(kept, "budget: 40", "budget: 50", 1)
	changed = strings.Replace(changed, "roles: [checkout_rw]", "roles: [checkout_rw, admin]", 1)
	changed = strings.Replace(changed, "metadata: {name: orders, environment: production}\nspec:\n  hosts",
		"metadata: {name: orders2, environment: production}\nspec:\n  hosts", 1)
	gone := armor.ObjectRef{Kind: armor.KindDatabase, Environment: "production", Name: "logins"}
	changes, apply, err := manifest.Plan(state, parse(t, changed), []armor.ObjectRef{gone})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "changes", changes, []manifest.Change{
		{Op: manifest.Create, Kind: "Database", Environment: "production", Name: "orders2"},
		{
			Op: manifest.Update, Kind: "Pool", Environment: "production", Name: "orders",
			Fields: []manifest.FieldChange{{Path: "spec.budget", Old: "40", New: "50"}},
		},
		{
			Op: manifest.Update, Kind: "Identity", Environment: "production", Name: "checkout",
			Fields: []manifest.FieldChange{{Path: "spec.grants[0].roles", Old: "[checkout_rw]", New: "[checkout_rw, admin]"}},
		},
		{Op: manifest.Delete, Kind: "Database", Environment: "production", Name: "logins"},
	})
	if apply.IfRevision != 7 || len(apply.Databases) != 1 || len(apply.Pools) != 1 || len(apply.Identities) != 1 ||
		len(apply.Environments) != 0 || len(apply.Delete) != 1 {
		t.Errorf("apply %+v", apply)
	}
}

func TestPlanRefusesContradictions(t *testing.T) {
	set := parse(t, whole)
	kept := armor.ObjectRef{Kind: armor.KindPool, Environment: "production", Name: "orders"}
	if _, _, err := manifest.Plan(stateOf(set), set, []armor.ObjectRef{kept}); !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("kept and deleted: %v", err)
	}
	absent := armor.ObjectRef{Kind: armor.KindPool, Environment: "production", Name: "absent"}
	if _, _, err := manifest.Plan(stateOf(set), set, []armor.ObjectRef{absent}); !errors.Is(err, armor.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}

// TestTemplateIsReadAndWritten: the names that stand for all others.
func TestTemplateIsReadAndWritten(t *testing.T) {
	text := `apiVersion: armor/v1
kind: Database
metadata: {name: "*", environment: e}
spec: {hosts: ["pg:5432"], tls: {mode: require}, auth: {roles: {r: {}}}}
---
apiVersion: armor/v1
kind: Pool
metadata: {name: rest, environment: e}
spec: {database: "*", mode: session, budget: 3, reserve: 1}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: i, environment: e}
spec: {id: spiffe://td/x, grants: [{database: "*", roles: [r], pool: rest}]}
`
	set := parse(t, text)
	if d := set.Databases[0]; d.Name != armor.TemplateDatabase || d.DBName != "" {
		t.Errorf("database %+v", d)
	}
	if p := set.Pools[0]; p.Database != armor.TemplateDatabase || p.Reserve != 1 || p.ReserveAfter != armor.DefaultReserveAfter {
		t.Errorf("pool %+v", p)
	}
	if g := set.Identities[0].Grants[0]; g.Database != armor.TemplateDatabase {
		t.Errorf("grant %+v", g)
	}
	var s armor.State
	s.Databases = s.Databases.With(set.Databases[0])
	s.Pools = s.Pools.With(set.Pools[0])
	s.Identities = s.Identities.With(set.Identities[0])
	written, err := manifest.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	again := parse(t, string(written))
	same(t, "databases", again.Databases, set.Databases)
	same(t, "pools", again.Pools, set.Pools)
	same(t, "identities", again.Identities, set.Identities)
}

func objectsIn(s manifest.Set) int {
	return len(s.Environments) + len(s.Databases) + len(s.Pools) + len(s.Identities)
}
