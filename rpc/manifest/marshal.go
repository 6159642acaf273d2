package manifest

import (
	"bytes"
	"fmt"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
)

// Marshal writes the configuration of a state: environments, databases, pools and
// identities, each in the order of their names. Secrets are names there, so the text
// holds none.
func Marshal(s *armor.State) ([]byte, error) {
	var out bytes.Buffer
	for e := range s.Environments.Values() {
		if err := write(&out, environmentDocument(e)); err != nil {
			return nil, err
		}
	}
	for d := range s.Databases.Values() {
		if err := write(&out, databaseDocument(d)); err != nil {
			return nil, err
		}
	}
	for p := range s.Pools.Values() {
		if err := write(&out, poolDocument(p)); err != nil {
			return nil, err
		}
	}
	for i := range s.Identities.Values() {
		if err := write(&out, identityDocument(i)); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func write[S any](out *bytes.Buffer, d document[S]) error {
	text, err := yaml.MarshalWithOptions(d, yaml.IndentSequence(false))
	if err != nil {
		return fmt.Errorf("write %s %s: %w", d.Kind, d.Metadata.Name, err)
	}
	if out.Len() > 0 {
		out.WriteString("---\n")
	}
	out.Write(text)
	return nil
}

func newDocument[S any](kind, environment, name string, spec S) document[S] {
	return document[S]{
		APIVersion: apiVersion, Kind: text(kind),
		Metadata: metadata{Name: text(name), Environment: text(environment)}, Spec: spec,
	}
}

func environmentDocument(e armor.Environment) document[environmentSpec] {
	return newDocument(armor.KindEnvironment, "", e.Name, environmentSpec{
		Inventory: text(e.Inventory), MaxLeafLifetime: durationText(e.MaxLeafLifetime),
		Freshness: freshness{New: durationText(e.FreshNew), Live: durationText(e.FreshLive)}, Cancel: text(e.Cancel),
	})
}

func databaseDocument(d armor.Database) document[databaseSpec] {
	spec := databaseSpec{
		Hosts: texts(d.Hosts), DBName: text(d.DBName), TLS: tls{Mode: text(d.TLSMode), CA: secret{text(d.CA)}},
		TargetSessionAttrs: text(d.TargetSessionAttrs), MaxLag: durationText(d.MaxLag), LoadBalanceHosts: text(d.LoadBalanceHosts),
		Auth: auth{
			Exclusive: d.Exclusive, Verifiers: secret{text(d.Verifiers)},
			Query: authQuery{text(d.Query.Role), text(d.Query.Statement)},
		},
	}
	if len(d.Roles) > 0 {
		spec.Auth.Roles = map[text]credential{}
	}
	for _, r := range d.Roles {
		c := credential{Secret: text(r.Secret), Certificate: secret{text(r.Certificate)}}
		if r.MD5 {
			c.Allow = allowMD5
		}
		spec.Auth.Roles[text(r.Role)] = c
	}
	return newDocument(armor.KindDatabase, d.Environment, d.Name, spec)
}

func poolDocument(p armor.Pool) document[poolSpec] {
	return newDocument(armor.KindPool, p.Environment, p.Name, poolSpec{
		Database: text(p.Database), Mode: text(p.Mode), Budget: p.Budget, QueryWait: durationText(p.QueryWait),
		QueryWaitNotify: text(p.QueryWaitNotify.String()),
		ServerLifetime:  text(p.ServerLifetime.String()), ServerIdle: text(p.ServerIdle.String()),
		OnState: onStateText(p), Isolation: text(p.Isolation), KeepSettings: texts(p.KeepSettings), MaxPinned: pinsWritten(p.MaxPinned),
		MaxPreparedStatements: p.MaxPreparedStatements, ConnectQuery: text(p.ConnectQuery), PoolIdle: durationText(p.PoolIdle),
		LoginNotifyMessage: text(p.LoginNotifyMessage), MinSize: p.MinSize, WarmUp: p.WarmUp, Reserve: p.Reserve, ReserveAfter: durationText(p.ReserveAfter),
		MaxClients: p.MaxClients, ClientIdle: durationText(p.ClientIdle), IdleInTransaction: durationText(p.IdleInTransaction),
		QueryTimeout: durationText(p.QueryTimeout), TransactionTimeout: durationText(p.TransactionTimeout),
	})
}

// onStateText leaves out what is meant where nothing is written: see standardOnState.
func onStateText(p armor.Pool) text {
	switch {
	case p.OnState == standardOnState(p.Mode):
		return ""
	case p.OnState == armor.ResetState:
		return armor.ResetWord
	}
	return text(p.OnState)
}

// pinsWritten is how many pins a manifest allows: none is zero there.
func pinsWritten(n int) *int {
	switch n {
	case 0:
		return nil
	case armor.NoPins:
		n = 0
	}
	return &n
}

func identityDocument(i armor.IdentityConfig) document[identitySpec] {
	spec := identitySpec{ID: text(i.ID), Owner: text(i.Owner), Contact: text(i.Contact), MaxConnections: i.MaxConnections}
	for _, g := range i.Grants {
		written := grant{
			Database: text(g.Database), Roles: texts(g.Roles), Pool: text(g.Pool),
			SecondFactor: text(g.SecondFactor), Replication: g.Replication,
		}
		for _, p := range g.CIDRs {
			written.CIDRs = append(written.CIDRs, text(p.String()))
		}
		spec.Grants = append(spec.Grants, written)
	}
	return newDocument(armor.KindIdentity, i.Environment, i.Name, spec)
}
