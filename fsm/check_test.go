package fsm

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// spoilt makes a copy of something good and spoils it.
func spoilt[V any](good V, spoil func(*V)) V {
	spoil(&good)
	return good
}

func TestBadFactsAreRefusedWhateverElseIsRight(t *testing.T) {
	l := furnished(t)
	leaf := l.leaf("new", "dev-ca", "spiffe://dev.acme/new")
	record := armor.CertRecord{Certificate: leaf, Environment: "dev", Owner: "team"}
	register := func(spoil func(*armor.CertRecord)) armor.Command {
		return armor.RegisterCertificate{Record: spoilt(record, spoil)}
	}
	join := func(spoil func(*armor.JoinRequest)) armor.Command {
		return armor.RequestJoin{Token: tokenHash("n4"), Request: spoilt(l.join("n4").Request, spoil)}
	}
	approve := func(spoil func(*armor.ApproveJoin)) armor.Command { return spoilt(l.approve("n5"), spoil) }
	db := func(spoil func(*armor.Database)) armor.Command {
		return armor.Apply{Databases: []armor.Database{spoilt(database("dev", "other", "rw"), spoil)}}
	}
	pool := func(spoil func(*armor.Pool)) armor.Command {
		return armor.Apply{Pools: []armor.Pool{spoilt(armor.Pool{Name: "p",
			Environment: "dev", Database: "app", Mode: armor.SessionMode, Budget: 5}, spoil)}}
	}
	grant := func(spoil func(*armor.Grant)) armor.Command {
		g := spoilt(armor.Grant{Database: "app", Roles: []string{"rw"}, Pool: "app"}, spoil)
		return armor.Apply{Identities: []armor.IdentityConfig{{Name: "x",
			Environment: "dev", ID: "spiffe://dev.acme/x", Grants: []armor.Grant{g}}}}
	}
	bad := map[string]armor.Command{
		"no issuer":           register(func(r *armor.CertRecord) { r.Certificate.ID.Issuer = armor.Digest{} }),
		"no key":              register(func(r *armor.CertRecord) { r.Certificate.Key = armor.Digest{} }),
		"upper-case serial":   register(func(r *armor.CertRecord) { r.Certificate.ID.Serial = "AB" }),
		"leading zero":        register(func(r *armor.CertRecord) { r.Certificate.ID.Serial = "0ab" }),
		"never valid":         register(func(r *armor.CertRecord) { r.Certificate.NotAfter = r.Certificate.NotBefore }),
		"no identity":         register(func(r *armor.CertRecord) { r.Certificate.Identity = "" }),
		"unclean identity":    register(func(r *armor.CertRecord) { r.Certificate.Identity = "spiffe://dev.acme/../x" }),
		"control characters":  register(func(r *armor.CertRecord) { r.Owner = "a\x1b[2J" }),
		"an endless owner":    register(func(r *armor.CertRecord) { r.Owner = strings.Repeat("x", 300) }),
		"no CSR":              join(func(r *armor.JoinRequest) { r.CSR = nil }),
		"a giant CSR":         join(func(r *armor.JoinRequest) { r.CSR = make([]byte, maxDER+1) }),
		"no peer address":     join(func(r *armor.JoinRequest) { r.PeerAddress = "" }),
		"port 0":              join(func(r *armor.JoinRequest) { r.OpsAddress = "h:0" }),
		"no chain":            approve(func(c *armor.ApproveJoin) { c.Chain = nil }),
		"a long chain":        approve(func(c *armor.ApproveJoin) { c.Chain = make([][]byte, 9) }),
		"another leaf":        approve(func(c *armor.ApproveJoin) { c.Chain = [][]byte{[]byte("x")} }),
		"an empty issuer":     approve(func(c *armor.ApproveJoin) { c.Chain = append(c.Chain, nil) }),
		"another node's name": approve(func(c *armor.ApproveJoin) { c.Certificate.Identity = l.nodeCert("n1").Identity }),
		"an expired node":     approve(func(c *armor.ApproveJoin) { c.Certificate.NotAfter = epoch.Add(-time.Minute) }),
		"no hosts":            db(func(o *armor.Database) { o.Hosts = nil }),
		"no dbname":           db(func(o *armor.Database) { o.DBName = "" }),
		"no tls mode":         db(func(o *armor.Database) { o.TLSMode = "" }),
		"a path for a CA":     db(func(o *armor.Database) { o.CA = "/etc/passwd" }),
		"a path for a secret": db(func(o *armor.Database) { o.Roles[0].Secret = "../node.key" }),
		"no roles":            grant(func(g *armor.Grant) { g.Roles = nil }),
		"an empty role":       grant(func(g *armor.Grant) { g.Roles = []string{""} }),
		"loose network":       grant(func(g *armor.Grant) { g.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")} }),
		"an unknown factor":   grant(func(g *armor.Grant) { g.SecondFactor = "otp" }),
		"nothing to prove by": grant(func(g *armor.Grant) { g.SecondFactor = armor.SCRAM }),
		"a console's factor":  grant(func(g *armor.Grant) { g.Database, g.SecondFactor = armor.ConsoleDatabase, armor.SCRAM }),
		"a console's log": grant(func(g *armor.Grant) {
			*g = armor.Grant{Database: armor.ConsoleDatabase, Roles: []string{armor.ConsoleStats}, Replication: true}
		}),
		"no way to cancel":            armor.PutEnvironment{Environment: armor.Environment{Name: "dev", Cancel: "never"}},
		"a TLS mode that yields":      db(func(o *armor.Database) { o.TLSMode = "prefer" }),
		"a path for a certificate":    db(func(o *armor.Database) { o.Roles[0].Certificate = "../node" }),
		"a certificate without TLS":   db(func(o *armor.Database) { o.Roles[0].Certificate, o.TLSMode = "rw", armor.TLSDisable }),
		"a certificate over a socket": db(func(o *armor.Database) { o.Roles[0].Certificate, o.Hosts = "rw", []string{"/run:5432"} }),
		"MD5 of no password":          db(func(o *armor.Database) { o.Roles[0].Secret, o.Roles[0].MD5 = "", true }),
		"a query by nobody":           db(func(o *armor.Database) { o.Query.Statement = "SELECT $1" }),
		"a query about nobody":        db(func(o *armor.Database) { o.Query = armor.AuthQuery{Role: "rw", Statement: "SELECT 1"} }),
		"a query that is nothing":     db(func(o *armor.Database) { o.Query.Role = "rw" }),
		"a query with a zero byte":    db(func(o *armor.Database) { o.Query = armor.AuthQuery{Role: "rw", Statement: "SELECT $1\x00"} }),
		"a very long query": db(func(o *armor.Database) {
			o.Query = armor.AuthQuery{Role: "rw", Statement: "SELECT $1" + strings.Repeat(" ", 4096)}
		}),
		"a query beside verifiers": db(func(o *armor.Database) {
			o.Query, o.Verifiers = armor.AuthQuery{Role: "rw", Statement: "SELECT $1"}, "apps"
		}),
		"a path for verifiers": db(func(o *armor.Database) { o.Verifiers = "../node.key" }),
		"no such pool":         grant(func(g *armor.Grant) { g.Pool = "none" }),
		"negative wait": armor.Apply{Pools: []armor.Pool{{Name: "p", Environment: "dev",
			Database: "app", Mode: armor.SessionMode, Budget: 5, QueryWait: -1}}},
		"a short time-out":                 pool(func(p *armor.Pool) { p.QueryTimeout = time.Millisecond }),
		"a negative time-out":              pool(func(p *armor.Pool) { p.ClientIdle = -time.Second }),
		"an endless lifetime":              pool(func(p *armor.Pool) { p.ServerLifetime = 400 * 24 * time.Hour }),
		"more than the budget":             pool(func(p *armor.Pool) { p.MinSize = 6 }),
		"an unknown isolation":             pool(func(p *armor.Pool) { p.Isolation = "some" }),
		"an unknown on state":              pool(func(p *armor.Pool) { p.OnState = "ignore" }),
		"a setting that is no custom one":  pool(func(p *armor.Pool) { p.KeepSettings = []string{"work_mem"} }),
		"a setting in quotes":              pool(func(p *armor.Pool) { p.KeepSettings = []string{"app.x'y"} }),
		"a setting twice":                  pool(func(p *armor.Pool) { p.KeepSettings = []string{"app.x", "app.x"} }),
		"negative pins":                    pool(func(p *armor.Pool) { p.MaxPinned = -2 }),
		"negative statements":              pool(func(p *armor.Pool) { p.MaxPreparedStatements = -1 }),
		"a connect query with a zero byte": pool(func(p *armor.Pool) { p.ConnectQuery = "SELECT\x00" }),
		"a very long notice":               pool(func(p *armor.Pool) { p.LoginNotifyMessage = strings.Repeat("x", 4097) }),
		"an idle time of no template":      pool(func(p *armor.Pool) { p.PoolIdle = time.Hour }),
		"a lag of no standby":              db(func(o *armor.Database) { o.MaxLag = time.Second }),
		"a lag too small":                  db(func(o *armor.Database) { o.MaxLag, o.TargetSessionAttrs = time.Microsecond, armor.Standby }),
		"all of it a reserve":              pool(func(p *armor.Pool) { p.Reserve, p.ReserveAfter = 5, time.Second }),
		"a reserve at once":                pool(func(p *armor.Pool) { p.Reserve = 1 }),
		"after what":                       pool(func(p *armor.Pool) { p.ReserveAfter = time.Second }),
		"warm, but how many":               pool(func(p *armor.Pool) { p.WarmUp = true }),
		"warm template":                    pool(func(p *armor.Pool) { p.Database, p.WarmUp, p.MinSize = "*", true, 1 }),
		"a template's dbname":              db(func(o *armor.Database) { o.Name = "*" }),
		"negative clients":                 pool(func(p *armor.Pool) { p.MaxClients = -1 }),
		"an unknown host":                  db(func(o *armor.Database) { o.TargetSessionAttrs = "leader" }),
		"an unknown order":                 db(func(o *armor.Database) { o.LoadBalanceHosts = "fair" }),
		"negative sessions": armor.Apply{Identities: []armor.IdentityConfig{{Name: "x",
			Environment: "dev", ID: "spiffe://dev.acme/x", MaxConnections: -1}}},
		"no mode":           armor.Apply{Pools: []armor.Pool{{Name: "p", Environment: "dev", Database: "app", Budget: 5}}},
		"an unknown reason": armor.Revoke{Reason: "bored", Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest("x")}}},
		"a forged anchor": spoilt(l.anchor("other-ca", "dev", "spiffe://dev.acme/*"),
			func(c *armor.PutAnchor) { c.Anchor.DER = []byte("x") }),
		"a token without hash": armor.CreateJoinToken{Token: armor.JoinToken{Node: "n9", Expires: l.now.Add(time.Hour)}},
		"a pattern of nothing": armor.Apply{Identities: []armor.IdentityConfig{{Name: "x", Environment: "dev", ID: "dev"}}},
	}
	for name, c := range bad {
		principal := "ada"
		if c.Needs() == "" {
			principal = "node/n1"
		}
		state := l.state()
		if err := l.apply(l.request(principal, c)).Err; !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if now := l.state(); now.Inventory.Len() != state.Inventory.Len() ||
			now.Databases.Len() != state.Databases.Len() || now.Members.Len() != state.Members.Len() {
			t.Errorf("%s changed something", name)
		}
	}
	// What was spoilt is accepted whole.
	l.must(l.by("ada", register(func(*armor.CertRecord) {})))
	l.must(l.node("n1", join(func(*armor.JoinRequest) {})))
	l.must(l.by("ada", approve(func(*armor.ApproveJoin) {})))
	l.must(l.by("ada", db(func(*armor.Database) {})))
	l.must(l.by("ada", grant(func(*armor.Grant) {})))
	l.must(l.by("ada",
		armor.Apply{Databases: []armor.Database{spoilt(database("dev", "app", "rw"), func(o *armor.Database) { o.Verifiers = "apps" })}}))
	l.must(l.by("ada", grant(func(g *armor.Grant) { g.SecondFactor = armor.SCRAM })))
	if err := l.by("ada", armor.Apply{Databases: []armor.Database{database("dev", "app", "rw")}}).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("verifiers that a grant needs were taken away: %v", err)
	}
	asking := spoilt(database("dev", "app", "rw", "looker"), func(o *armor.Database) {
		o.Roles[0].Certificate, o.Roles[1].MD5 = "rw", true
		o.Query = armor.AuthQuery{Role: "looker", Statement: "SELECT $1"}
	})
	l.must(l.by("ada", armor.Apply{Databases: []armor.Database{asking}}))
	if err := l.by("ada", grant(func(g *armor.Grant) { g.Roles = []string{"looker"} })).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("a client may be who looks up passwords: %v", err)
	}
}

func TestBadBootstrapsAreRefused(t *testing.T) {
	bad := map[string]func(*armor.Bootstrap){
		"a short cluster id":     func(b *armor.Bootstrap) { b.Cluster.ID = "c1" },
		"no peer CA":             func(b *armor.Bootstrap) { b.Cluster.PeerCA = nil },
		"two peer CAs":           func(b *armor.Bootstrap) { b.Cluster.NextPeerCA = []byte("DER") },
		"no name":                func(b *armor.Bootstrap) { b.Cluster.Name = "" },
		"a member not to vote":   func(b *armor.Bootstrap) { b.Member.Voter = false },
		"an operator in name":    func(b *armor.Bootstrap) { b.Operator.Roles = []armor.OperatorRole{armor.Viewer} },
		"a nameless certificate": func(b *armor.Bootstrap) { b.Member.Certificate.ID = armor.CertID{} },
		"another's key":          func(b *armor.Bootstrap) { b.Operator.PublicKey = make([]byte, 65) },
	}
	l := newLab(t)
	for name, spoil := range bad {
		if err := l.node("n1", spoilt(l.bootstrap("n1", "ada"), spoil)).Err; !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.state().Cluster.ID != "" || l.state().NextIndex != 0 {
		t.Fatal("a refused bootstrap left something behind")
	}
	l.must(l.node("n1", l.bootstrap("n1", "ada")))
}

func TestAClusterRunsOutOfNodeNumbersLoudly(t *testing.T) {
	l := governed(t)
	d := l.machine.current.Load().world.edit()
	d.NextIndex = armor.MaxNodeIndex
	l.machine.publish(l.machine.current.Load(), &version{world: d.finish()})
	l.admit("n2")
	if m, _ := l.state().Members.Get("n2"); m.Index != armor.MaxNodeIndex {
		t.Fatal(m.Index)
	}
	l.must(l.by("ada", l.token("n3", time.Hour)))
	l.must(l.node("n1", l.join("n3")))
	if err := l.by("ada", l.approve("n3")).Err; !errors.Is(err, armor.ErrExhausted) {
		t.Fatal(err)
	}
}

func TestLongRefusalsAreCutAtACharacter(t *testing.T) {
	long := strings.Repeat("é", maxText)
	_, text := encodeError(refuse(armor.ErrInvalid, "%s", long))
	if len(text) > maxText || !strings.HasSuffix(text, "é") {
		t.Fatalf("%d bytes, ends in %q", len(text), text[len(text)-4:])
	}
}

// Of an intermediate nobody may know who has signed it: it is judged by its key.
func TestAnchorNeedNotNameItsIssuer(t *testing.T) {
	l := furnished(t)
	c := l.anchor("issuing-ca", "dev", "spiffe://dev.acme/*")
	for _, want := range []uint32{1, 7} { // members of an older release take all but an intermediate
		entry, err := l.machine.Check(l.sign(l.request("ada", c)), l.now)
		if err != nil {
			t.Fatal(err)
		}
		if _, level := LevelOf(entry); level != want {
			t.Errorf("proposed at level %d, want %d", level, want)
		}
		c.Anchor.Certificate.ID.Issuer = armor.Digest{}
	}
	l.must(l.by("ada", c))
	c = l.anchor("odd-ca", "dev", "spiffe://dev.acme/*")
	c.Anchor.Certificate.Key = armor.Digest{}
	if err := l.by("ada", c).Err; !errors.Is(err, armor.ErrInvalid) {
		t.Errorf("without a key: %v", err)
	}
}
