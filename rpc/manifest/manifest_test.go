package manifest_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

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
		QueryWaitNotify: 5 * time.Second, ServerLifetime: time.Hour, ServerIdle: 10 * time.Minute,
	}, {
		Name: "limits", Environment: "production", Database: "orders", Mode: armor.SessionMode, Budget: 9, QueryWait: 7 * time.Second,
		ServerLifetime: 2 * time.Hour, ServerIdle: 3 * time.Minute, MinSize: 4, WarmUp: true, Reserve: 2,
		ReserveAfter: 15 * time.Second, MaxClients: 500, OnState: armor.RefuseState,
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

func TestErrorsSayWhere(t *testing.T) {
	head := func(kind string) string {
		return "apiVersion: armor/v1\nkind: " + kind + "\nmetadata: {name: x, environment: e}\n"
	}
	cases := []struct{ name, text, place, message string }{
		{"unknown key", head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  budgte: 2\n", "8:3", "budgte"},
		{"bare number as duration", head("Pool") + "spec: {database: x, mode: session, budget: 1, queryWait: 120}\n", "4:", "not a duration"},
		{
			"unknown mode",
			head("Pool") + "spec:\n  database: x\n  mode: query\n  budget: 1\n",
			"6:9", `"query" is not one of session, transaction, statement`,
		},
		{
			"minimum above the budget",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  minSize: 2\n",
			"8:12", "not between 0 and the budget",
		},
		{
			"unknown on state",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  onState: ignore\n",
			"8:12", `"ignore" is not one of reset, pin, refuse`,
		},
		{
			"negative number of clients",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  maxClients: -1\n",
			"8:15", "negative",
		},
		{
			"too short a time-out",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  queryTimeout: 10ms\n",
			"8:17", "0s turns it off",
		},
		{"negative time-out", head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 1\n  serverIdle: -1s\n", "8:15", "negative"},
		{
			"unknown host choice",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  targetSessionAttrs: leader\n",
			"8:23", `"leader" is not one of any, read-write`,
		},
		{
			"unknown host order",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  loadBalanceHosts: fair\n",
			"8:21", `"fair" is not one of disable, random`,
		},
		{"negative number of connections", head("Identity") + "spec:\n  id: spiffe://td/x\n  maxConnections: -1\n", "6:19", "negative"},
		{"no budget", head("Pool") + "spec:\n  database: x\n  mode: session\n", "5:", "at least one server connection"},
		{
			"second factor",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n  - {database: x, pool: x, roles: [r]}\n  - database: x\n" +
				"    pool: x\n    roles: [r]\n    secondFactor: otp\n",
			"11:19", `"otp" is not one of scram`,
		},
		{
			"query by nobody",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n" +
				"    query: {role: r, statement: SELECT $1}\n",
			"9:", "none of the database's roles",
		},
		{
			"query about nobody",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles: {r: {}}\n" +
				"    query: {role: r, statement: SELECT 1}\n",
			"10:", "no $1",
		},
		{
			"query beside verifiers",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles: {r: {}}\n" +
				"    verifiers: {secret: x}\n    query: {role: r, statement: SELECT $1}\n",
			"11:", "not by both",
		},
		{
			"pass-through",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n" +
				"    roles: {q: {}, r: pass-through}\n",
			"9:23", "pass-through is not supported",
		},
		{
			"pass-through alone",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles:\n" +
				"      r: pass-through\n",
			"10:10", "pass-through is not supported",
		},
		{
			"md5 without a password",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles:\n" +
				"      r: {allow: md5}\n",
			"10:", "give it a secret",
		},
		{
			"allowing anything else",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles:\n" +
				"      r: {secret: x, allow: password}\n",
			"10:29", `"password" is not one of md5`,
		},
		{
			"certificate without TLS",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: disable}\n  auth:\n    roles:\n" +
				"      r: {certificate: {secret: x}}\n",
			"10:", "needs TLS",
		},
		{
			"certificate over a socket",
			head("Database") + "spec:\n  hosts: ['/run:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles:\n" +
				"      r: {certificate: {secret: x}}\n",
			"10:", "Unix socket",
		},
		{
			"path as certificate",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth:\n    roles:\n" +
				"      r: {certificate: {secret: ../x}}\n",
			"10:33", "secret",
		},
		{"opportunistic TLS", head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: prefer}\n", "7:15", "write verify-full"},
		{
			"path as verifiers",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require}\n  auth: {verifiers: {secret: ../x}}\n",
			"8:30", "secret",
		},
		{
			"reserved name",
			"apiVersion: armor/v1\nkind: Database\nmetadata:\n  name: pgbouncer\n  environment: e\n" +
				"spec: {hosts: ['a:1'], dbname: d, tls: {mode: require}}\n",
			"4:9", "admin console",
		},
		{
			"console with a pool",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n  - {database: armor, pool: x, roles: [stats]}\n",
			"7:", "no pool",
		},
		{
			"console role",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n  - {database: armor, roles: [root]}\n",
			"7:", "not stats or admin",
		},
		{
			"a console to replicate",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n  - {database: armor, roles: [stats], replication: true}\n",
			"7:", "nothing to replicate",
		},
		{
			"kind of replication",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n  - {database: x, pool: x, roles: [r], replication: physical}\n",
			"7:", "replication",
		},
		{
			"unknown way to cancel",
			"apiVersion: armor/v1\nkind: Environment\nmetadata: {name: e}\nspec:\n  cancel: never\n",
			"5:11", `"never" is not one of any, tls-only`,
		},
		{
			"host bits",
			head("Identity") + "spec:\n  id: spiffe://td/x\n  grants:\n" +
				"  - {database: x, pool: x, roles: [r], cidrs: [10.0.0.0/8, 10.2.0.1/16]}\n",
			"7:60", "write 10.2.0.0/16",
		},
		{"identity", head("Identity") + "spec:\n  id: spiffe://TD/x\n", "5:7", "trust domain"},
		{
			"template",
			"apiVersion: armor/v1\nkind: Database\nmetadata:\n  name: '*'\n  environment: e\n" +
				"spec: {hosts: ['a:1'], dbname: d, tls: {mode: require}}\n",
			"6:32", "leave it out",
		},
		{
			"template as a name of anything else",
			"apiVersion: armor/v1\nkind: Pool\nmetadata:\n  name: '*'\n  environment: e\n" +
				"spec: {database: '*', mode: session, budget: 1}\n",
			"4:9", "letters, digits",
		},
		{"name without quotes", "apiVersion: armor/v1\nkind: Database\nmetadata:\n  name: *\n", "4:9", "quote a name"},
		{
			"all of it a reserve",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 2\n  reserve: 2\n",
			"8:12", "one less than the budget",
		},
		{
			"reserve at once",
			head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 2\n  reserve: 1\n  reserveAfter: 0s\n",
			"9:17", "after some time",
		},
		{"warm up of nothing", head("Pool") + "spec:\n  database: x\n  mode: session\n  budget: 2\n  warmUp: true\n", "8:11", "needs a minSize"},
		{
			"path as secret",
			head("Database") + "spec:\n  hosts: ['a:1']\n  dbname: d\n  tls: {mode: require, ca: {secret: ../../etc/passwd}}\n",
			"7:37", "secret",
		},
		{"version", "apiVersion: armor/v2\nkind: Pool\n", "1:13", "this version reads armor/v1"},
		{"kind", "apiVersion: armor/v1\nkind: Pod\n", "2:7", "not one of"},
		{"duplicate key", head("Pool") + "kind: Pool\n", "4:", "kind"},
		{"anchor", head("Pool") + "spec: &a {}\n", "4:7", "anchors"},
		{"syntax", "apiVersion: armor/v1\nkind: [\n", "", ""},
		{"scalar", "hello", "1:1", "mapping"},
		{"wrong type", head("Pool") + "spec: {database: x, mode: session, budget: many}\n", "4:44", "this is text, and a number belongs here"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := manifest.Parse("f.yaml", []byte(c.text))
			if !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("accepted: %v", err)
			}
			if !strings.HasPrefix(err.Error(), "f.yaml:"+c.place) || !strings.Contains(err.Error(), c.message) {
				t.Errorf("got  %v\nwant f.yaml:%s … %s", err, c.place, c.message)
			}
		})
	}
}

func TestAllErrorsOfAFileAreToldWithExcerpts(t *testing.T) {
	text := strings.Replace(whole, "mode: transaction", "mode: fast", 1)
	text = strings.Replace(text, "inventory: required", "inventory: shut", 1)
	text = strings.Replace(text, "10.2.0.0/16", "10.2.0.0", 1)
	_, err := manifest.Parse("f.yaml", []byte(text))
	for _, want := range []string{
		"f.yaml:5:19: \"shut\"", "f.yaml:21:32: \"fast\"", "f.yaml:54:",
		"    5 | spec: {inventory: shut", "\n                          ^",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
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

func TestOversizeAndDeepFilesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"size":     strings.Repeat("#", manifest.MaxSize+1),
		"brackets": strings.Repeat("[", 100_000),
		"markers":  strings.Repeat("- ", 100_000),
		"keys":     strings.Repeat("? ", 100_000),
	} {
		if _, err := manifest.Parse(name, []byte(text)); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
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

func name(t *rapid.T, what string) string {
	return rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}`).Draw(t, what)
}

// text is anything that the machine takes as an owner or a role: printable, and awkward
// for YAML.
func text(t *rapid.T, what string) string {
	return rapid.OneOf(
		rapid.StringMatching(`[ -~]{1,12}`),
		rapid.SampledFrom([]string{
			"yes", "null", "~", "0x1F", "1e3", "- a", "a: b", "#x", "'", `"`, "{", "ä — ß", "a\nb", " lead", "trail ",
			"|", ">", "*a", "&a", "!t", "2024-01-01", ".inf", "<<", "=", "true", "0o7", "12:30",
		}),
	).Draw(t, what)
}

func drawState(t *rapid.T) *armor.State {
	s := &armor.State{Revision: 3}
	env := name(t, "environment")
	live := time.Duration(rapid.Int64Range(1e9, 600e9).Draw(t, "live"))
	e := armor.Environment{
		Name: env, Inventory: rapid.SampledFrom([]armor.InventoryMode{armor.InventoryOpen, armor.InventoryRequired}).Draw(t, "inventory"),
		MaxLeafLifetime: time.Duration(rapid.Int64Range(0, 1e17).Draw(t, "lifetime")),
		FreshLive:       live, FreshNew: time.Duration(rapid.Int64Range(1e9, int64(live)).Draw(t, "new")),
	}
	e.Cancel = rapid.SampledFrom([]armor.CancelMode{armor.CancelAny, armor.CancelTLSOnly}).Draw(t, "cancel")
	s.Environments = s.Environments.With(e)
	d := armor.Database{
		Name: name(t, "database"), Environment: env, DBName: text(t, "dbname"), Exclusive: rapid.Bool().Draw(t, "exclusive"),
		Hosts:   rapid.SliceOfN(rapid.SampledFrom([]string{"pg:5432", "[::1]:1", "/run/postgresql:5432", "10.0.0.1:80"}), 1, 3).Draw(t, "hosts"),
		TLSMode: rapid.SampledFrom([]armor.TLSMode{armor.TLSDisable, armor.TLSRequire, armor.TLSVerifyCA, armor.TLSVerifyFull}).Draw(t, "tls"),
	}
	d.TargetSessionAttrs = rapid.SampledFrom([]armor.SessionAttrs{
		armor.AnySession, armor.ReadWrite, armor.ReadOnly, armor.Primary, armor.Standby, armor.PreferStandby,
	}).Draw(t, "attrs")
	d.LoadBalanceHosts = rapid.SampledFrom([]armor.LoadBalance{armor.InOrder, armor.RandomHost}).Draw(t, "order")
	if rapid.Bool().Draw(t, "ca") {
		d.CA, d.Verifiers = armor.SecretName(name(t, "ca name")), armor.SecretName(name(t, "verifiers"))
	}
	for _, role := range []string{"a", "b"} {
		a := armor.RoleAuth{Role: role + text(t, "role"), Secret: armor.SecretName(name(t, "secret")), MD5: rapid.Bool().Draw(t, "md5")}
		if d.TLSMode != armor.TLSDisable && !slices.ContainsFunc(d.Hosts, filepath.IsAbs) {
			a.Certificate = armor.SecretName(name(t, "certificate"))
		}
		d.Roles = append(d.Roles, a)
	}
	if d.Verifiers == "" && rapid.Bool().Draw(t, "query") {
		d.Query = armor.AuthQuery{Role: d.Roles[0].Role, Statement: "SELECT $1 " + text(t, "statement")}
	}
	s.Databases = s.Databases.With(d)
	p := armor.Pool{
		Name: name(t, "pool"), Environment: env, Database: d.Name, Budget: rapid.IntRange(1, 1000).Draw(t, "budget"),
		Mode:       rapid.SampledFrom([]armor.PoolMode{armor.SessionMode, armor.TransactionMode, armor.StatementMode}).Draw(t, "mode"),
		QueryWait:  time.Duration(rapid.Int64Range(1, int64(armor.LongestQueryWait)).Draw(t, "wait")),
		MaxClients: rapid.IntRange(0, 9).Draw(t, "clients"),
	}
	p.OnState = rapid.SampledFrom([]armor.OnState{armor.ResetState, armor.PinState, armor.RefuseState}).Draw(t, "on state")
	p.MinSize = rapid.IntRange(0, p.Budget).Draw(t, "minimum")
	p.WarmUp = p.MinSize > 0 && rapid.Bool().Draw(t, "warm")
	if p.Reserve = rapid.IntRange(0, p.Budget-1).Draw(t, "reserve"); p.Reserve > 0 {
		p.ReserveAfter = time.Duration(rapid.Int64Range(int64(armor.ShortestTimeOut), 1e14).Draw(t, "reserve after"))
	}
	drawn := rapid.Map(rapid.Int64Range(int64(armor.ShortestTimeOut), 1e14), func(n int64) time.Duration { return time.Duration(n) })
	for _, d := range []*time.Duration{
		&p.QueryWaitNotify, &p.ServerLifetime, &p.ServerIdle,
		&p.ClientIdle, &p.IdleInTransaction, &p.QueryTimeout, &p.TransactionTimeout,
	} {
		*d = rapid.OneOf(rapid.Just(time.Duration(0)), drawn).Draw(t, "time-out")
	}
	s.Pools = s.Pools.With(p)
	i := armor.IdentityConfig{
		Name: name(t, "identity"), Environment: env,
		ID:    armor.Pattern("spiffe://td/" + rapid.StringMatching(`[a-z0-9]{1,5}(/\*)?`).Draw(t, "id")),
		Owner: text(t, "owner"), Contact: text(t, "contact"),
	}
	i.MaxConnections = rapid.IntRange(0, 9).Draw(t, "connections")
	for range rapid.IntRange(0, 2).Draw(t, "grants") {
		g := armor.Grant{Database: d.Name, Pool: p.Name, Roles: []string{text(t, "granted"), text(t, "granted")}}
		if rapid.Bool().Draw(t, "second factor") {
			g.SecondFactor = armor.SCRAM
		}
		g.Replication = rapid.Bool().Draw(t, "replication")
		if rapid.Bool().Draw(t, "cidrs") {
			g.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}
		}
		i.Grants = append(i.Grants, g)
	}
	s.Identities = s.Identities.With(i)
	return s
}

func TestPlanOfAnExportIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		out, err := manifest.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		set, err := manifest.Parse("export.yaml", out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if objectsIn(set) != 4 {
			t.Fatalf("%d objects in\n%s", objectsIn(set), out)
		}
		changes, _, err := manifest.Plan(s, set, nil)
		if err != nil || len(changes) > 0 {
			t.Fatalf("%+v, %v after\n%s", changes, err, out)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: [*x, &x b]"))
	f.Add([]byte("- - ? |\n"))
	for _, path := range []string{"../../deploy/demo"} {
		files, _ := filepath.Glob(filepath.Join(path, "*.yaml"))
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		set, err := manifest.Parse("fuzz", src)
		if err != nil {
			if !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		s := stateOf(set)
		out, err := manifest.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := manifest.Parse("again", out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if changes, _, err := manifest.Plan(s, again, nil); err != nil || len(changes) > 0 {
			t.Fatalf("%+v, %v in\n%s", changes, err, out)
		}
	})
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
