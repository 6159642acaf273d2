package armor_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func goodEnvironment() armor.Environment { return armor.Environment{Name: "prod"}.WithDefaults() }

func goodDatabase() armor.Database {
	return armor.Database{
		Name: "orders", Environment: "prod", Hosts: []string{"pg1:5432", "[::1]:5432", "/run/postgresql:5432"}, DBName: "orders",
		TLSMode: armor.TLSVerifyFull, CA: "pg-ca", Roles: []armor.RoleAuth{{Role: "ro"}, {Role: "a b", Secret: "rw", MD5: true}},
		Query: armor.AuthQuery{Role: "ro", Statement: "SELECT $1"},
	}
}

func goodPool() armor.Pool {
	return armor.Pool{
		Name: "orders", Environment: "prod", Database: "orders", Mode: armor.SessionMode, Budget: 5, MinSize: 5, WarmUp: true,
		Reserve: 4, ReserveAfter: armor.ShortestTimeOut, ServerLifetime: armor.LongestTimeOut, MaxClients: armor.MaxClients,
	}.WithDefaults()
}

func goodIdentity() armor.IdentityConfig {
	return armor.IdentityConfig{Name: "checkout", Environment: "prod", ID: "spiffe://prod/checkout/*", Grants: []armor.Grant{
		{
			Database: "orders", Roles: []string{"rw"}, Pool: "orders", SecondFactor: armor.SCRAM,
			CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		},
		{Database: armor.ConsoleDatabase, Roles: []string{armor.ConsoleStats, armor.ConsoleAdmin}},
	}}
}

func TestGoodObjectsPass(t *testing.T) {
	template := goodDatabase()
	template.Name, template.DBName = armor.TemplateDatabase, ""
	for name, err := range map[string]error{
		"environment": goodEnvironment().Check(), "database": goodDatabase().Check(), "template": template.Check(),
		"pool": goodPool().Check(), "identity": goodIdentity().Check(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func environmentWith(spoil func(*armor.Environment)) error {
	e := goodEnvironment()
	spoil(&e)
	return e.Check()
}

func databaseWith(spoil func(*armor.Database)) error {
	d := goodDatabase()
	spoil(&d)
	return d.Check()
}

func poolWith(spoil func(*armor.Pool)) error {
	p := goodPool()
	spoil(&p)
	return p.Check()
}

func grantWith(n int, spoil func(*armor.Grant)) error {
	i := goodIdentity()
	spoil(&i.Grants[n])
	return i.Check()
}

// TestFaultsNameTheirField: one thing is spoilt at a time, and told once.
func TestFaultsNameTheirField(t *testing.T) {
	cases := []struct {
		field string
		err   error
	}{
		{"metadata.name", environmentWith(func(e *armor.Environment) { e.Name = "a/b" })},
		{"spec.inventory", environmentWith(func(e *armor.Environment) { e.Inventory = "" })},
		{"spec.cancel", environmentWith(func(e *armor.Environment) { e.Cancel = armor.AnyWord })}, // it is written so, and empty here
		{"spec.maxLeafLifetime", environmentWith(func(e *armor.Environment) { e.MaxLeafLifetime = -1 })},
		{"spec.freshness", environmentWith(func(e *armor.Environment) { e.FreshNew = time.Millisecond })},
		{"spec.freshness", environmentWith(func(e *armor.Environment) { e.FreshLive = time.Hour })},

		{"metadata.name", databaseWith(func(d *armor.Database) { d.Name = armor.ConsoleDatabase })},
		{"spec.hosts", databaseWith(func(d *armor.Database) { d.Hosts = nil })},
		{"spec.hosts[1]", databaseWith(func(d *armor.Database) { d.Hosts[1] = "pg2" })},
		{"spec.targetSessionAttrs", databaseWith(func(d *armor.Database) { d.TargetSessionAttrs = armor.AnyWord })},
		{"spec.loadBalanceHosts", databaseWith(func(d *armor.Database) { d.LoadBalanceHosts = armor.InOrderWord })},
		{"spec.dbname", databaseWith(func(d *armor.Database) { d.DBName = "" })},
		{"spec.dbname", databaseWith(func(d *armor.Database) { d.DBName = strings.Repeat("x", 64) })},
		{"spec.dbname", databaseWith(func(d *armor.Database) { d.Name = armor.TemplateDatabase })},
		{"spec.tls.mode", databaseWith(func(d *armor.Database) { d.TLSMode = "prefer" })},
		{"spec.tls.ca.secret", databaseWith(func(d *armor.Database) { d.CA = "/etc/passwd" })},
		{"spec.auth.verifiers.secret", databaseWith(func(d *armor.Database) { d.Query, d.Verifiers = armor.AuthQuery{}, "../x" })},
		{`spec.auth.roles["a b"].secret`, databaseWith(func(d *armor.Database) { d.Roles[1].Secret = "../x" })},
		{`spec.auth.roles["a b"].allow`, databaseWith(func(d *armor.Database) { d.Roles[1].Secret = "" })},
		{"spec.auth.roles.ro.certificate.secret", databaseWith(func(d *armor.Database) { d.Roles[0].Certificate = "rw" })}, // over a socket
		{`spec.auth.roles["a b"]`, databaseWith(func(d *armor.Database) { d.Roles = append(d.Roles, armor.RoleAuth{Role: "a b"}) })},
		{`spec.auth.roles[""]`, databaseWith(func(d *armor.Database) { d.Roles = append(d.Roles, armor.RoleAuth{}) })},
		{"spec.auth.query", databaseWith(func(d *armor.Database) { d.Verifiers = "apps" })},
		{"spec.auth.query.role", databaseWith(func(d *armor.Database) { d.Query.Role = "none" })},
		{"spec.auth.query.statement", databaseWith(func(d *armor.Database) { d.Query.Statement = "SELECT 1" })},

		{"spec.mode", poolWith(func(p *armor.Pool) { p.Mode = "" })},
		{"spec.onState", poolWith(func(p *armor.Pool) { p.OnState = armor.ResetWord })},
		{"spec.budget", poolWith(func(p *armor.Pool) { p.Budget = 0 })}, // and nothing of what is more than it
		{"spec.budget", poolWith(func(p *armor.Pool) { p.Budget = armor.MaxBudget + 1 })},
		{"spec.minSize", poolWith(func(p *armor.Pool) { p.MinSize = 6 })},
		{"spec.warmUp", poolWith(func(p *armor.Pool) { p.MinSize = 0 })},
		{"spec.warmUp", poolWith(func(p *armor.Pool) { p.Database = armor.TemplateDatabase })},
		{"spec.reserve", poolWith(func(p *armor.Pool) { p.Reserve = 5 })},
		{"spec.reserveAfter", poolWith(func(p *armor.Pool) { p.Reserve = 0 })},
		{"spec.reserveAfter", poolWith(func(p *armor.Pool) { p.ReserveAfter = 0 })},
		{"spec.queryWait", poolWith(func(p *armor.Pool) { p.QueryWait = -1 })},
		{"spec.queryWait", poolWith(func(p *armor.Pool) { p.QueryWait = armor.LongestQueryWait + 1 })},
		{"spec.clientIdle", poolWith(func(p *armor.Pool) { p.ClientIdle = time.Millisecond })},
		{"spec.serverLifetime", poolWith(func(p *armor.Pool) { p.ServerLifetime++ })},
		{"spec.maxClients", poolWith(func(p *armor.Pool) { p.MaxClients++ })},

		{"spec.grants[0].roles", grantWith(0, func(g *armor.Grant) { g.Roles = nil })},
		{"spec.grants[0].roles[0]", grantWith(0, func(g *armor.Grant) { g.Roles = []string{""} })},
		{"spec.grants[0].cidrs[0]", grantWith(0, func(g *armor.Grant) { g.CIDRs[0] = netip.MustParsePrefix("10.1.0.0/8") })},
		{"spec.grants[0].secondFactor", grantWith(0, func(g *armor.Grant) { g.SecondFactor = "otp" })},
		{"spec.grants[1].secondFactor", grantWith(1, func(g *armor.Grant) { g.SecondFactor = armor.SCRAM })},
		{"spec.grants[1].pool", grantWith(1, func(g *armor.Grant) { g.Pool = "orders" })},
		{"spec.grants[1].replication", grantWith(1, func(g *armor.Grant) { g.Replication = true })},
		{"spec.grants[1].roles[1]", grantWith(1, func(g *armor.Grant) { g.Roles[1] = "root" })},
	}
	for _, c := range cases {
		found, _ := errors.AsType[armor.FieldErrors](c.err)
		if len(found) != 1 || found[0].Field.String() != c.field || !errors.Is(c.err, armor.ErrInvalid) {
			t.Errorf("%s: %v", c.field, c.err)
		}
	}
}

// TestAllFaultsAreToldInOneLine, up to a bound.
func TestAllFaultsAreToldInOneLine(t *testing.T) {
	p := goodPool()
	p.Mode, p.MinSize = "fast", -1
	want := `invalid: spec.mode: "fast" is not one of session, transaction, statement; spec.minSize: -1 is not between 0 and the budget, 5`
	if err := p.Check(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	d := goodDatabase()
	for range 1000 {
		d.Roles = append(d.Roles, armor.RoleAuth{})
	}
	if found, _ := errors.AsType[armor.FieldErrors](d.Check()); len(found) != 20 {
		t.Errorf("%d faults are told", len(found))
	}
}

// TestDefaultsAreFilledInOnce: what has its defaults keeps them.
func TestDefaultsAreFilledInOnce(t *testing.T) {
	e := armor.Environment{FreshNew: 8 * time.Second, FreshLive: 9 * time.Second, Inventory: armor.InventoryRequired}
	if e.WithDefaults() != e {
		t.Errorf("%+v", e.WithDefaults())
	}
	if long := (armor.Environment{FreshNew: time.Minute}).WithDefaults(); long.FreshLive != time.Minute {
		t.Errorf("live sessions of %+v", long)
	}
	if short := (armor.Environment{FreshLive: time.Second}).WithDefaults(); short.FreshNew != time.Second {
		t.Errorf("new sessions of %+v", short)
	}
	if p := (armor.Pool{QueryWait: 1}).WithDefaults(); p.QueryWait != 1 {
		t.Errorf("%+v", p)
	}
}
