package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/armordb/armordb/armor"
)

// Each kind is read here and written in marshal.go. What an object may say is armor's to
// judge, by the Check that the machine asks too; what is checked here is what is not in
// the object any more once it has been read, and names of other objects: the machine only
// looks those up, and here a name that nothing can have is told with its place.

func (p *parsing) environment(body ast.Node) {
	d, o := read[environmentSpec](p, body)
	if o == nil {
		return
	}
	if d.Metadata.Environment != "" {
		o.wrong(armor.Field{"metadata", "environment"}, "an Environment is in no other environment")
	}
	e := armor.Environment{
		Name:            string(d.Metadata.Name),
		Inventory:       armor.InventoryMode(d.Spec.Inventory),
		MaxLeafLifetime: o.duration(d.Spec.MaxLeafLifetime, 0, "maxLeafLifetime"),
		FreshNew:        o.duration(d.Spec.Freshness.New, 0, "freshness", "new"),
		FreshLive:       o.duration(d.Spec.Freshness.Live, 0, "freshness", "live"),
		Cancel:          armor.CancelMode(unless(d.Spec.Cancel, armor.AnyWord)),
	}.WithDefaults()
	if o.keep(e.Ref(), e.Check()) {
		p.set.Environments = append(p.set.Environments, e)
	}
}

func (p *parsing) database(body ast.Node) {
	if p.passesThrough(body) {
		return
	}
	doc, o := read[databaseSpec](p, body)
	if o == nil {
		return
	}
	spec := doc.Spec
	d := armor.Database{
		Name: string(doc.Metadata.Name), Environment: o.environment(doc.Metadata),
		Hosts: stringsOf(spec.Hosts), DBName: string(spec.DBName),
		TLSMode: armor.TLSMode(spec.TLS.Mode), CA: armor.SecretName(spec.TLS.CA.Secret),
		TargetSessionAttrs: armor.SessionAttrs(unless(spec.TargetSessionAttrs, armor.AnyWord)), MaxLag: o.duration(spec.MaxLag, 0, "maxLag"),
		LoadBalanceHosts: armor.LoadBalance(unless(spec.LoadBalanceHosts, armor.InOrderWord)),
		Roles:            o.roles(spec.Auth.Roles), Exclusive: spec.Auth.Exclusive,
		Verifiers: armor.SecretName(spec.Auth.Verifiers.Secret),
		Query:     armor.AuthQuery{Role: string(spec.Auth.Query.Role), Statement: string(spec.Auth.Query.Statement)},
	}
	if o.keep(d.Ref(), d.Check()) {
		p.set.Databases = append(p.set.Databases, d)
	}
}

// allowMD5 is what a role's allow may say.
const allowMD5 = "md5"

// roles reads how nodes log in.
func (o *object) roles(written map[text]credential) []armor.RoleAuth {
	var all []armor.RoleAuth
	for role, c := range written {
		if c.Allow != "" && c.Allow != allowMD5 {
			o.wrong(armor.Field{"spec", "auth", "roles", string(role), "allow"}, "%q is not one of %s", clip(c.Allow), allowMD5)
		}
		all = append(all, armor.RoleAuth{
			Role: string(role), Secret: armor.SecretName(c.Secret), Certificate: armor.SecretName(c.Certificate.Secret), MD5: c.Allow == allowMD5,
		})
	}
	slices.SortFunc(all, func(a, b armor.RoleAuth) int { return strings.Compare(a.Role, b.Role) })
	return all
}

// passesThrough refuses what would otherwise be a puzzle of types: a role whose login
// is a word.
func (p *parsing) passesThrough(body ast.Node) (refused bool) {
	roles, ok := nodeAt(body, armor.Field{"spec", "auth", "roles"}).(*ast.MappingNode)
	if !ok {
		return false
	}
	for _, role := range roles.Values {
		if word, ok := role.Value.(*ast.StringNode); ok && word.Value == "pass-through" {
			p.at(word.GetToken(), "pass-through is not supported: SCRAM through a proxy that ends TLS gives up the channel binding; "+
				"give the role a secret or a certificate, and grants secondFactor: scram")
			refused = true
		}
	}
	return refused
}

// unless returns t, or nothing when it is the default in so many words.
func unless(t, standard text) text {
	if t == standard {
		return ""
	}
	return t
}

func (p *parsing) pool(body ast.Node) {
	d, o := read[poolSpec](p, body)
	if o == nil {
		return
	}
	s := d.Spec
	reserveAfter := time.Duration(0)
	if s.Reserve > 0 {
		reserveAfter = armor.DefaultReserveAfter
	}
	pool := armor.Pool{
		Name: string(d.Metadata.Name), Environment: o.environment(d.Metadata),
		Database: o.databaseOf(s.Database, armor.Field{"spec", "database"}),
		Mode:     armor.PoolMode(s.Mode), Budget: s.Budget, OnState: onStateOf(s),
		Isolation:    armor.Isolation(unless(s.Isolation, armor.IdentityWord)),
		KeepSettings: stringsOf(s.KeepSettings), MaxPinned: pinsOf(s.MaxPinned), MaxPreparedStatements: s.MaxPreparedStatements,
		ConnectQuery: string(s.ConnectQuery), LoginNotifyMessage: string(s.LoginNotifyMessage),
		PoolIdle: o.duration(s.PoolIdle, 0, "poolIdle"),
		MinSize:  s.MinSize, WarmUp: s.WarmUp, MaxClients: s.MaxClients, Reserve: s.Reserve,
		ReserveAfter:       o.duration(s.ReserveAfter, reserveAfter, "reserveAfter"),
		QueryWait:          o.duration(s.QueryWait, 0, "queryWait"),
		QueryWaitNotify:    o.duration(s.QueryWaitNotify, armor.DefaultQueryWaitNotify, "queryWaitNotify"),
		ServerLifetime:     o.duration(s.ServerLifetime, armor.DefaultServerLifetime, "serverLifetime"),
		ServerIdle:         o.duration(s.ServerIdle, armor.DefaultServerIdle, "serverIdle"),
		ClientIdle:         o.duration(s.ClientIdle, 0, "clientIdle"),
		IdleInTransaction:  o.duration(s.IdleInTransaction, 0, "idleInTransaction"),
		QueryTimeout:       o.duration(s.QueryTimeout, 0, "queryTimeout"),
		TransactionTimeout: o.duration(s.TransactionTimeout, 0, "transactionTimeout"),
	}.WithDefaults()
	if o.keep(pool.Ref(), pool.Check()) {
		p.set.Pools = append(p.set.Pools, pool)
	}
}

// standardOnState is what a pool does that says nothing of it.
func standardOnState(m armor.PoolMode) armor.OnState {
	if m == armor.SessionMode {
		return armor.ResetState // which a session never comes to
	}
	return armor.KeepState
}

func onStateOf(s poolSpec) armor.OnState {
	switch s.OnState {
	case "":
		return standardOnState(armor.PoolMode(s.Mode))
	case armor.ResetWord:
		return armor.ResetState
	}
	return armor.OnState(s.OnState)
}

// pinsOf reads how many pins a manifest allows; a negative number is refused with the pool.
func pinsOf(written *int) int {
	switch {
	case written == nil:
		return 0
	case *written == 0:
		return armor.NoPins
	case *written < 0:
		return *written - 1
	}
	return *written
}

func (p *parsing) identity(body ast.Node) {
	d, o := read[identitySpec](p, body)
	if o == nil {
		return
	}
	i := armor.IdentityConfig{
		Name: string(d.Metadata.Name), Environment: o.environment(d.Metadata),
		ID: armor.Pattern(d.Spec.ID), Owner: string(d.Spec.Owner), Contact: string(d.Spec.Contact),
		MaxConnections: d.Spec.MaxConnections,
	}
	for n, g := range d.Spec.Grants {
		i.Grants = append(i.Grants, o.grant(g, armor.Field{"spec", "grants", n}))
	}
	if o.keep(i.Ref(), i.Check()) {
		p.set.Identities = append(p.set.Identities, i)
	}
}

func (o *object) grant(g grant, at armor.Field) armor.Grant {
	granted := armor.Grant{
		Database: o.databaseOf(g.Database, at.In("database")), Roles: stringsOf(g.Roles), Pool: string(g.Pool),
		SecondFactor: armor.SecondFactor(g.SecondFactor), Replication: g.Replication,
	}
	if !armor.IsConsole(granted.Database) {
		o.complain(armor.CheckName("pool", granted.Pool), at.In("pool"))
	}
	for n, written := range g.CIDRs {
		prefix, err := netip.ParsePrefix(string(written))
		if err != nil {
			o.wrong(at.In("cidrs", n), "%q is not a network such as 10.2.0.0/16", clip(written))
		}
		granted.CIDRs = append(granted.CIDRs, prefix)
	}
	return granted
}

// databaseOf reads the name of a database that a pool or a grant is of.
func (o *object) databaseOf(name text, at armor.Field) string {
	o.complain(armor.CheckDatabaseReference(string(name)), at)
	return string(name)
}

// environment reads the name of the environment that the object is in.
func (o *object) environment(m metadata) string {
	o.complain(armor.CheckName("environment", string(m.Environment)), armor.Field{"metadata", "environment"})
	return string(m.Environment)
}

// duration reads one of the spec. It is the standard one where none is written, or none
// that can be read.
func (o *object) duration(t text, standard time.Duration, path ...any) time.Duration {
	if t == "" {
		return standard
	}
	d, err := parseDuration(t)
	if err != nil {
		o.complain(err, armor.Field{"spec"}.In(path...))
		return standard
	}
	return d
}

// object is a document under way to its word: complaints go to where a field stands.
type object struct {
	*parsing
	body ast.Node
	ok   bool
}

// complain notes what is wrong with a field. A nil err is none.
func (o *object) complain(err error, at armor.Field) {
	if err != nil {
		o.wrong(at, "%s", strings.TrimPrefix(err.Error(), armor.ErrInvalid.Error()+": "))
	}
}

// wrong names the field where it is not written, so that its place does not say which it is.
func (o *object) wrong(at armor.Field, format string, args ...any) {
	o.ok = false
	if nodeAt(o.body, at) == nil {
		format, args = "%s: "+format, append([]any{at}, args...)
	}
	o.at(tokenAt(o.body, at), format, args...)
}

// keep notes what is wrong with the object as a whole, and where it is written; it is
// false for one that is not to be kept.
func (o *object) keep(ref armor.ObjectRef, err error) bool {
	found, _ := errors.AsType[armor.FieldErrors](err)
	for _, e := range found {
		o.wrong(e.Field, "%s", e.Text)
	}
	if first, twice := o.set.places[ref]; twice {
		o.wrong(armor.Field{"metadata", "name"}, "%s is written twice, first at %s", ref, first)
	}
	line := 0
	if t := o.body.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	o.set.places[ref] = fmt.Sprintf("%s:%d", o.faults.file, line)
	return o.ok
}
