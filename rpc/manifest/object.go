package manifest

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/armordb/armordb/armor"
)

// Each kind is read here and written in marshal.go. What is checked is what can be
// told from the file alone; the rest is the machine's to judge.

func (p *parsing) environment(body ast.Node) {
	d, o := read[environmentSpec](p, KindEnvironment, body)
	if !o.ok {
		return
	}
	e := withDefaults(armor.Environment{
		Name:            string(d.Metadata.Name),
		Inventory:       armor.InventoryMode(d.Spec.Inventory),
		MaxLeafLifetime: o.duration(d.Spec.MaxLeafLifetime, "spec", "maxLeafLifetime"),
		FreshNew:        o.duration(d.Spec.Freshness.New, "spec", "freshness", "new"),
		FreshLive:       o.duration(d.Spec.Freshness.Live, "spec", "freshness", "live"),
		Cancel:          armor.CancelMode(unless(d.Spec.Cancel, cancelAny)),
	})
	oneOf(o, e.Inventory, []any{"spec", "inventory"}, armor.InventoryOpen, armor.InventoryRequired)
	if e.Cancel != armor.CancelAny {
		oneOf(o, e.Cancel, []any{"spec", "cancel"}, cancelAny, armor.CancelTLSOnly)
	}
	if e.FreshLive < e.FreshNew {
		o.wrong([]any{"spec", "freshness"}, "live sessions cannot be closed (%s) before new ones are refused (%s)", e.FreshLive, e.FreshNew)
	}
	if o.keep() {
		p.set.Environments = append(p.set.Environments, e)
	}
}

// withDefaults fills in what the machine fills in.
func withDefaults(e armor.Environment) armor.Environment {
	if e.Inventory == "" {
		e.Inventory = armor.InventoryOpen
	}
	if e.FreshLive == 0 {
		e.FreshLive = max(armor.DefaultFreshLive, e.FreshNew)
	}
	if e.FreshNew == 0 {
		e.FreshNew = min(armor.DefaultFreshNew, e.FreshLive)
	}
	return e
}

func (p *parsing) database(body ast.Node) {
	if p.passesThrough(body) {
		return
	}
	doc, o := read[databaseSpec](p, KindDatabase, body)
	if !o.ok {
		return
	}
	spec := doc.Spec
	d := armor.Database{
		Name: string(doc.Metadata.Name), Environment: string(doc.Metadata.Environment),
		Hosts: stringsOf(spec.Hosts), DBName: string(spec.DBName),
		TLSMode: armor.TLSMode(spec.TLS.Mode), CA: armor.SecretName(spec.TLS.CA.Secret), Exclusive: spec.Auth.Exclusive,
		Verifiers:          armor.SecretName(spec.Auth.Verifiers.Secret),
		TargetSessionAttrs: armor.SessionAttrs(unless(spec.TargetSessionAttrs, anySession)), LoadBalanceHosts: armor.LoadBalance(unless(spec.LoadBalanceHosts, inOrder)),
	}
	o.logins(&d, spec.Auth)
	if len(d.Hosts) == 0 {
		o.wrong([]any{"spec", "hosts"}, "hosts is missing: give at least one host:port")
	}
	o.complain(d.CheckTemplate(), "spec", "dbname")
	if d.DBName == "" && !armor.IsTemplate(d.Name) {
		o.wrong([]any{"spec", "dbname"}, "dbname is missing: give the database's name on the server")
	}
	o.complain(armor.CheckTLSMode(d.TLSMode), "spec", "tls", "mode")
	o.secretName(spec.TLS.CA.Secret, "spec", "tls", "ca")
	o.secretName(spec.Auth.Verifiers.Secret, "spec", "auth", "verifiers")
	o.hostChoice(d)
	if armor.IsConsole(d.Name) {
		o.complain(armor.CheckDatabaseName(d.Name), "metadata", "name")
	}
	if o.keep() {
		p.set.Databases = append(p.set.Databases, d)
	}
}

// allowMD5 is what a role's allow may say.
const allowMD5 = "md5"

// logins reads how nodes log in, and how the passwords of clients are looked up.
func (o *object) logins(d *armor.Database, written auth) {
	for role, c := range written.Roles {
		at := []any{"spec", "auth", "roles", string(role)}
		if c.Allow != "" {
			oneOf(o, c.Allow, append(at, "allow"), allowMD5)
		}
		o.secretName(c.Secret, at...)
		o.secretName(c.Certificate.Secret, append(at, "certificate")...)
		a := armor.RoleAuth{Role: string(role), Secret: armor.SecretName(c.Secret), Certificate: armor.SecretName(c.Certificate.Secret), MD5: c.Allow == allowMD5}
		o.complain(d.CheckAuth(a), at...)
		d.Roles = append(d.Roles, a)
	}
	slices.SortFunc(d.Roles, func(a, b armor.RoleAuth) int { return strings.Compare(a.Role, b.Role) })
	d.Query = armor.AuthQuery{Role: string(written.Query.Role), Statement: string(written.Query.Statement)}
	o.complain(d.CheckQuery(), "spec", "auth", "query")
}

// passesThrough refuses what would otherwise be a puzzle of types: a role whose login
// is a word.
func (p *parsing) passesThrough(body ast.Node) (refused bool) {
	roles, ok := nodeAt(body, "spec", "auth", "roles").(*ast.MappingNode)
	if !ok {
		return false
	}
	for _, role := range roles.Values {
		if word, ok := role.Value.(*ast.StringNode); ok && word.Value == "pass-through" {
			p.at(word.GetToken(), "pass-through is not supported: SCRAM through a proxy that ends TLS gives up the channel binding; give the role a secret or a certificate, and grants secondFactor: scram")
			refused = true
		}
	}
	return refused
}

// anySession, inOrder and resetState are how defaults are written, in libpq's words where
// it has any.
const (
	anySession = "any"
	inOrder    = "disable"
	resetState = "reset"
	cancelAny  = "any"
)

// unless returns t, or nothing when it is the default in so many words.
func unless(t, standard text) text {
	if t == standard {
		return ""
	}
	return t
}

func (o *object) hostChoice(d armor.Database) {
	if d.TargetSessionAttrs != armor.AnySession {
		oneOf(o, d.TargetSessionAttrs, []any{"spec", "targetSessionAttrs"}, anySession, armor.ReadWrite, armor.ReadOnly, armor.Primary, armor.Standby, armor.PreferStandby)
	}
	if d.LoadBalanceHosts != armor.InOrder {
		oneOf(o, d.LoadBalanceHosts, []any{"spec", "loadBalanceHosts"}, inOrder, armor.RandomHost)
	}
}

func (p *parsing) pool(body ast.Node) {
	d, o := read[poolSpec](p, KindPool, body)
	if !o.ok {
		return
	}
	pool := armor.Pool{
		Name: string(d.Metadata.Name), Environment: string(d.Metadata.Environment), Database: string(d.Spec.Database),
		Mode: armor.PoolMode(d.Spec.Mode), Budget: d.Spec.Budget, QueryWait: o.duration(d.Spec.QueryWait, "spec", "queryWait"),
		MinSize: d.Spec.MinSize, WarmUp: d.Spec.WarmUp, Reserve: d.Spec.Reserve, MaxClients: d.Spec.MaxClients, OnState: armor.OnState(unless(d.Spec.OnState, resetState)),
	}
	o.timeOuts(&pool, d.Spec)
	if pool.QueryWait == 0 {
		pool.QueryWait = armor.DefaultQueryWait
	}
	o.complain(armor.CheckDatabaseReference(pool.Database), "spec", "database")
	oneOf(o, pool.Mode, []any{"spec", "mode"}, armor.SessionMode, armor.TransactionMode, armor.StatementMode)
	if pool.Budget < 1 {
		o.wrong([]any{"spec", "budget"}, "budget %d: a pool has at least one server connection", pool.Budget)
	}
	if pool.MinSize < 0 || pool.MinSize > max(pool.Budget, 0) {
		o.wrong([]any{"spec", "minSize"}, "minSize %d is not between 0 and the budget", pool.MinSize)
	}
	o.reserve(pool)
	if pool.WarmUp && (pool.MinSize == 0 || armor.IsTemplate(pool.Database)) {
		o.wrong([]any{"spec", "warmUp"}, "warmUp opens minSize server connections to a database that is known: it needs a minSize, and a database other than the template")
	}
	if pool.OnState != armor.ResetState {
		oneOf(o, pool.OnState, []any{"spec", "onState"}, resetState, armor.PinState, armor.RefuseState)
	}
	if pool.MaxClients < 0 {
		o.wrong([]any{"spec", "maxClients"}, "maxClients %d is negative", pool.MaxClients)
	}
	if o.keep() {
		p.set.Pools = append(p.set.Pools, pool)
	}
}

func (o *object) reserve(p armor.Pool) {
	if p.Reserve < 0 || p.Reserve >= max(p.Budget, 1) {
		o.wrong([]any{"spec", "reserve"}, "reserve %d is not between 0 and one less than the budget", p.Reserve)
	}
	if (p.Reserve > 0) != (p.ReserveAfter > 0) {
		o.wrong([]any{"spec", "reserveAfter"}, "reserveAfter %s with reserve %d: a reserve is opened after some time, and without one there is nothing to open", p.ReserveAfter, p.Reserve)
	}
}

// timeOuts reads those of a pool.
func (o *object) timeOuts(p *armor.Pool, s poolSpec) {
	reserveAfter := time.Duration(0)
	if s.Reserve > 0 {
		reserveAfter = armor.DefaultReserveAfter
	}
	for _, t := range []struct {
		field    string
		written  text
		to       *time.Duration
		standard time.Duration
	}{
		{"queryWaitNotify", s.QueryWaitNotify, &p.QueryWaitNotify, armor.DefaultQueryWaitNotify},
		{"serverLifetime", s.ServerLifetime, &p.ServerLifetime, armor.DefaultServerLifetime},
		{"serverIdle", s.ServerIdle, &p.ServerIdle, armor.DefaultServerIdle},
		{"clientIdle", s.ClientIdle, &p.ClientIdle, 0},
		{"idleInTransaction", s.IdleInTransaction, &p.IdleInTransaction, 0},
		{"queryTimeout", s.QueryTimeout, &p.QueryTimeout, 0},
		{"transactionTimeout", s.TransactionTimeout, &p.TransactionTimeout, 0},
		{"reserveAfter", s.ReserveAfter, &p.ReserveAfter, reserveAfter},
	} {
		if *t.to = t.standard; t.written != "" {
			*t.to = o.duration(t.written, "spec", t.field)
		}
		if *t.to > 0 && *t.to < armor.ShortestTimeOut {
			o.wrong([]any{"spec", t.field}, "%s %s is shorter than %s; 0s turns it off", t.field, *t.to, armor.ShortestTimeOut)
		}
	}
}

func (p *parsing) identity(body ast.Node) {
	d, o := read[identitySpec](p, KindIdentity, body)
	if !o.ok {
		return
	}
	i := armor.IdentityConfig{
		Name: string(d.Metadata.Name), Environment: string(d.Metadata.Environment),
		ID: armor.Pattern(d.Spec.ID), Owner: string(d.Spec.Owner), Contact: string(d.Spec.Contact),
		MaxConnections: d.Spec.MaxConnections,
	}
	if i.MaxConnections < 0 {
		o.wrong([]any{"spec", "maxConnections"}, "maxConnections %d is negative", i.MaxConnections)
	}
	_, err := armor.ParsePattern(string(i.ID))
	o.complain(err, "spec", "id")
	for n, g := range d.Spec.Grants {
		i.Grants = append(i.Grants, o.grant(n, g))
	}
	if o.keep() {
		p.set.Identities = append(p.set.Identities, i)
	}
}

func (o *object) grant(n int, g grant) armor.Grant {
	at := func(field string) []any { return []any{"spec", "grants", n, field} }
	o.complain(armor.CheckDatabaseReference(string(g.Database)), at("database")...)
	if !armor.IsConsole(string(g.Database)) {
		o.complain(armor.CheckName("pool", string(g.Pool)), at("pool")...)
	}
	if len(g.Roles) == 0 {
		o.wrong(at("roles"), "roles is missing: a grant names the roles it gives")
	}
	granted := armor.Grant{Database: string(g.Database), Roles: stringsOf(g.Roles), Pool: string(g.Pool), SecondFactor: armor.SecondFactor(g.SecondFactor), Replication: g.Replication}
	o.complain(granted.CheckConsole(), at("database")...)
	if g.SecondFactor != "" {
		oneOf(o, granted.SecondFactor, at("secondFactor"), armor.SCRAM)
	}
	for k, written := range g.CIDRs {
		prefix, err := netip.ParsePrefix(string(written))
		switch {
		case err != nil:
			o.wrong(append(at("cidrs"), k), "%q is not a network such as 10.2.0.0/16", clip(written))
		case prefix != prefix.Masked():
			o.wrong(append(at("cidrs"), k), "network %s has bits set beyond its length: write %s", prefix, prefix.Masked())
		}
		granted.CIDRs = append(granted.CIDRs, prefix)
	}
	return granted
}

// oneOf checks a word against those there are.
func oneOf[W ~string](o *object, word W, path []any, words ...W) {
	if slices.Contains(words, word) {
		return
	}
	var all []string
	for _, w := range words {
		all = append(all, string(w))
	}
	o.wrong(path, "%q is not one of %s", clip(word), strings.Join(all, ", "))
}

func (o *object) duration(t text, path ...any) time.Duration {
	d, err := parseDuration(t)
	o.complain(err, path...)
	return d
}

// secretName checks a name that is given; none is fine. It is a file name in a node's
// secrets directory, so a path in it is refused.
func (o *object) secretName(s text, path ...any) {
	if s != "" {
		o.complain(armor.CheckName("secret", string(s)), append(path, "secret")...)
	}
}
