package pooler

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgwire"
)

func TestOptionsAreReadAsPostgreSQLDoes(t *testing.T) {
	for options, want := range map[string]map[string]string{
		"":                                  {},
		"  ":                                {},
		"-c a=b":                            {"a": "b"},
		"-ca=b -c c=":                       {"a": "b", "c": ""},
		"--a-b=c-d":                         {"a_b": "c-d"},
		"-c A=x -c a=y":                     {"a": "y"},
		`-c search_path=a\ b,c\\d -c e=f=g`: {"search_path": `a b,c\d`, "e": "f=g"},
		"\t-c\na=b\r":                       {"a": "b"},
		`-c a=\`:                            {"a": ""},
	} {
		got, err := parseOptions(options)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", options, got, err, want)
		}
	}
	for _, options := range []string{"-c", "-c a", "-B 1", "a=b", "--", "--=x", "-e", "-c =b"} {
		if got, err := parseOptions(options); err == nil || err.Code != "0A000" {
			t.Errorf("%q: got %v, %v, want 0A000", options, got, err)
		}
	}
}

func TestReplicationIsReadAsByPostgreSQL(t *testing.T) {
	const bad = armor.Replication("bad")
	for value, want := range map[string]armor.Replication{
		"database": armor.LogicalReplication, "true": armor.PhysicalReplication,
		"1": armor.PhysicalReplication, "on": armor.PhysicalReplication, "Y": armor.PhysicalReplication,
		"false": armor.NoReplication, "0": armor.NoReplication, "off": armor.NoReplication, "no": armor.NoReplication, "F": armor.NoReplication,
		"": bad, "o": bad, "Database": bad, "data": bad, "physical": bad, "truee": bad, "2": bad,
	} {
		r := newRequest(pgwire.Startup{Parameters: [][2]string{{"replication", "true"}, {"replication", value}}})
		if err := r.readReplication(); (err != nil) != (want == bad) || err == nil && r.replication != want {
			t.Errorf("replication=%q: %q, %v", value, r.replication, err)
		}
	}
}

func TestParametersOfThePacketWinOverOptions(t *testing.T) {
	r := newRequest(pgwire.Startup{Parameters: [][2]string{
		{"user", "me"}, {"DateStyle", "ISO"}, {"options", "-c datestyle=German -c application_name=o"}, {"application_name", "p"},
	}})
	if err := r.readSettings(); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"datestyle": "ISO"}; r.database != "me" || r.application != "p" || !maps.Equal(r.settings, want) {
		t.Errorf("got %+v", r)
	}
}

func FuzzReadSettings(f *testing.F) {
	f.Add("-c a=b --c-d=e", "DateStyle", "ISO")
	f.Add(`-c \`, "replication", "x")
	f.Add("-c user=postgres --replication=true", "replication", "database")
	f.Fuzz(func(t *testing.T, options, name, value string) {
		r := newRequest(pgwire.Startup{Parameters: [][2]string{{"options", options}, {name, value}}})
		if err := r.readSettings(); err != nil {
			if err.Severity != pgwire.SeverityFatal {
				t.Errorf("refused with %v", err)
			}
			return
		}
		for setting := range r.settings {
			if slices.Contains(notForClients, setting) {
				t.Errorf("setting %q was let through", setting)
			}
		}
		if r.readReplication() != nil || r.makeTerms(armor.SessionMode) != nil {
			return
		}
		for word, value := range r.terms.startup() { // what the login says beside user, database and options
			if word == "user" || word == "database" || word == "options" || strings.HasPrefix(word, "_pq_.") ||
				word == "replication" && value != map[armor.Replication]string{armor.PhysicalReplication: "true", armor.LogicalReplication: "database"}[r.replication] {
				t.Errorf("the login says %s=%q", word, value)
			}
		}
	})
}

// TestReasonsAreToldAsDocumented reads docs/refusals.md: the table that operators and
// developers read is the one that the code follows.
func TestReasonsAreToldAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/refusals.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.Contains(cells[4], "`") {
			continue
		}
		reason := armor.Reason(strings.Trim(cells[4], " `"))
		code := strings.TrimSpace(cells[3])
		if code == "08007" { // the core's own
			continue
		}
		rows++
		if got := wireError(&armor.Denial{Reason: reason, Message: "m"}); got.Code != code || got.Severity != "FATAL" {
			t.Errorf("%s: got %v, documented %s", reason, got, code)
		}
	}
	if rows < 15 {
		t.Errorf("only %d rows were found", rows)
	}
}

func TestErrorsThatAreNobodysBusinessStayInside(t *testing.T) {
	secret := fmt.Errorf("dial tcp 10.1.2.3:5432: %w", errors.New("no route to host"))
	for _, err := range []error{secret, backend.Unreachable(secret), fmt.Errorf("login: %w", backend.Unreachable(secret))} {
		e := wireError(err)
		if text := e.Message + e.Detail + e.Hint; strings.Contains(text, "10.1.2.3") || e.Code == "" {
			t.Errorf("the client reads %+v", e)
		}
	}
	if e := wireError(secret); e.Code != "XX000" {
		t.Errorf("got %v", e)
	}
}
