package manifest_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/manifest"
)

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
	p.Isolation = rapid.SampledFrom([]armor.Isolation{armor.IsolatedIdentities, armor.IsolatedClients, armor.NoIsolation}).Draw(t, "isolation")
	p.OnState = rapid.SampledFrom([]armor.OnState{armor.ResetState, armor.KeepState, armor.PinState, armor.RefuseState}).Draw(t, "on state")
	p.MaxPinned = rapid.IntRange(armor.NoPins, 9).Draw(t, "pins")
	p.MaxPreparedStatements = rapid.IntRange(0, 9).Draw(t, "statements")
	p.ConnectQuery, p.LoginNotifyMessage = text(t, "connect query"), text(t, "notice")
	if rapid.Bool().Draw(t, "keeps") {
		p.KeepSettings = []string{"app.tenant", "app." + rapid.StringMatching("[a-s]{1,4}").Draw(t, "setting")}
	}
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
