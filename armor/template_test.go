package armor_test

import (
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

// withTemplate adds a template to the world, and grants.
func withTemplate(grants ...armor.Grant) *armor.State {
	s := withIdentity(world(), grants...)
	s.Databases = s.Databases.With(armor.Database{Name: "*", Environment: "production", Hosts: []string{"pg:5432"}})
	s.Pools = s.Pools.With(armor.Pool{Name: "rest", Environment: "production", Database: "*", Budget: 2})
	return s
}

func TestTemplateIsForDatabasesThatAreNotListed(t *testing.T) {
	template := armor.Grant{Database: "*", Roles: []string{"checkout_rw"}, Pool: "rest"}
	listed := armor.Grant{Database: "orders", Roles: []string{"checkout_rw"}, Pool: "orders"}
	for name, c := range map[string]struct {
		s              *armor.State
		database, role string
		pool           string // empty: refused
		reason         armor.Reason
	}{
		"not listed":                  {withTemplate(template), "reports", "checkout_rw", "rest", ""},
		"another role":                {withTemplate(template), "reports", "root", "", armor.ReasonRole},
		"not granted":                 {withTemplate(listed), "reports", "checkout_rw", "", armor.ReasonDatabase},
		"no template":                 {withIdentity(world(), template), "reports", "checkout_rw", "", armor.ReasonDatabase},
		"listed, and only * granted":  {withTemplate(template), "orders", "checkout_rw", "", armor.ReasonDatabase},
		"listed, and both granted":    {withTemplate(template, listed), "orders", "checkout_rw", "orders", ""},
		"listed elsewhere":            {withTemplate(template), "scratch", "checkout_rw", "rest", ""},
		"the console":                 {withTemplate(template), "pgbouncer", "checkout_rw", "", armor.ReasonDatabase},
		"the template itself":         {withTemplate(template), "*", "checkout_rw", "rest", ""},
		"a name that would be cut":    {withTemplate(template), strings.Repeat("x", 64), "checkout_rw", "", armor.ReasonDatabase},
		"the longest there is":        {withTemplate(template), strings.Repeat("x", 63), "checkout_rw", "rest", ""},
		"a name that is no object's":  {withTemplate(template), "Größe/1", "checkout_rw", "rest", ""},
		"not listed, without a grant": {withTemplate(), "reports", "checkout_rw", "", armor.ReasonDatabase},
	} {
		f := checkout()
		f.Database, f.Role = c.database, c.role
		access, denial := c.s.Decide(f, noon)
		switch {
		case c.pool == "" && (denial == nil || denial.Reason != c.reason):
			t.Errorf("%s: %+v, %v", name, access, denial)
		case c.pool != "" && (denial != nil || access.Pool.Name != c.pool):
			t.Errorf("%s: %+v, %v", name, access, denial)
		case c.pool == "rest" && (access.Database.Name != "*" || access.Database.DBName != c.database):
			t.Errorf("%s: leads to %+v", name, access.Database)
		}
	}
}

func TestSharesKeepTheirPartOfTheReserveBack(t *testing.T) {
	for _, c := range []struct{ budget, reserve, share, want int }{
		{10, 0, 4, 0}, {10, 2, 10, 2}, {10, 2, 5, 1}, {10, 2, 4, 1}, {10, 1, 3, 1}, {10, 9, 4, 3}, {10, 5, 1, 0}, {10, 5, 0, 0}, {3, 1, 1, 0},
	} {
		p := armor.Pool{Budget: c.budget, Reserve: c.reserve}
		if got := p.ReserveOf(c.share); got != c.want {
			t.Errorf("budget %d, reserve %d: a share of %d keeps %d, want %d", c.budget, c.reserve, c.share, got, c.want)
		}
	}
}
