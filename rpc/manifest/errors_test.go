package manifest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

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
			"8:12", `"ignore" is not one of reset, keep, pin, refuse`,
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
		"f.yaml:5:19: \"shut\"", "f.yaml:21:32: \"fast\"", "f.yaml:60:",
		"    5 | spec: {inventory: shut", "\n                          ^",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
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
