package console

import (
	"fmt"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
)

func TestPoolsOfOneDatabaseAreAddedUp(t *testing.T) {
	all := tallies()
	all[0].Status.Paused, all[1].Status.Paused = true, true
	all[1].Status.Disabled, all[1].Config.Mode = true, armor.SessionMode
	sums := SumDatabases(all)
	if len(sums) != 2 {
		t.Fatalf("%d sums", len(sums))
	}
	d := &sums[0]
	if d.First.Name != "orders" || d.Limit != 10 || d.Open != 4 || d.Clients != 6 ||
		d.Totals.Transactions != 14 || d.Totals.Lent != 2*time.Second {
		t.Errorf("%+v", d)
	}
	if !d.Paused || d.Disabled || d.Mode != "" || sums[1].Mode != armor.TransactionMode {
		t.Errorf("paused %t, disabled %t, mode %q and %q", d.Paused, d.Disabled, d.Mode, sums[1].Mode)
	}
	if host, port := d.Host(); host != "pg1" || port != 5433 {
		t.Errorf("%s:%d", host, port)
	}
	if d.ServerName() != "orders" {
		t.Error(d.ServerName())
	}
}

func TestRolesAreAddedUpByTheDatabaseTheyAskFor(t *testing.T) {
	all := tallies()
	all[0].Config.Database = armor.TemplateDatabase
	all[0].Roles = []RoleTally{{Database: "a", Role: "rw", ClientsActive: 1, MaxWait: 1},
		{Database: "b", Role: "rw", ClientsActive: 1, MaxWait: 3}}
	for name, c := range map[string]struct {
		got  []RoleSum
		want string
	}{
		"as asked":      {SumRoles(all), "production a rw 1, production b rw 1, production orders rw 3, staging orders rw 3, "},
		"as configured": {SumConfiguredRoles(all), "production * rw 2, production orders rw 3, staging orders rw 3, "},
	} {
		text := ""
		for _, r := range c.got {
			text += fmt.Sprintf("%s %s %s %d, ", r.Environment, r.Database, r.Role, r.ClientsActive)
		}
		if text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
	if got := SumConfiguredRoles(all)[0].MaxWait; got != 3 {
		t.Errorf("the longest wait is %d", got)
	}
}

func TestRatesAreBySecondAndMeansAreNot(t *testing.T) {
	from := Totals{Counts: core.Counts{Queries: 10, Transactions: 5}, Lent: time.Second}
	to := Totals{Counts: core.Counts{Queries: 70, Transactions: 25, Binds: 30},
		Lent: 5 * time.Second, Assignments: 20, Waited: 10 * time.Second}
	r := RatesOf(from, to, 10*time.Second)
	if r.Queries != 6 || r.Transactions != 2 || r.Binds != 3 || r.Assignments != 2 || r.Waited != time.Second {
		t.Errorf("%+v", r)
	}
	if r.Transaction != 200*time.Millisecond || r.Query != 4*time.Second/60 {
		t.Errorf("a transaction takes %s, a query %s", r.Transaction, r.Query)
	}
	if r := RatesOf(to, to, time.Second); r != (Rates{}) {
		t.Errorf("of nothing: %+v", r)
	}
}
