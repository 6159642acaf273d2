package fsm

import (
	"fmt"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

// TestAnySequenceOfCommandsKeepsThePromises draws commands, sensible and not, over few
// names, so that they meet.
func TestAnySequenceOfCommandsKeepsThePromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := governed(rt, "n2", "n3")
		l.must(l.by("ada", armor.Apply{
			Environments: []armor.Environment{{Name: "dev"}, {Name: "prod"}},
			Databases:    []armor.Database{database("dev", "app", "rw"), database("prod", "app", "rw")},
			Pools:        []armor.Pool{pool("dev", "app", "app", 12), pool("prod", "app", "app", 9)},
		}))
		d := draw{rt, l}
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			before := l.state()
			l.now = l.now.Add(d.upTo("later", 20) * time.Second)
			if d.number("pause", 0, 9) == 0 {
				l.now = l.now.Add(armor.KeptAfterEnd)
			}
			l.apply(d.request())
			l.invariants(before)
		}
		replayTwice(rt, l)
		cut := rapid.IntRange(0, len(l.entries)).Draw(rt, "cut")
		prefix := New()
		for i, entry := range l.entries[:cut] {
			if _, err := prefix.Apply(uint64(i+1), l.term, entry); err != nil {
				rt.Fatal(err)
			}
		}
		restored := New()
		restore(rt, restored, prefix.Snapshot())
		sameMachine(rt, "continued from a snapshot", l.machine, l.replayed(restored, cut))
	})
}

type draw struct {
	*rapid.T
	l *lab
}

func (d draw) upTo(what string, n int) time.Duration {
	return time.Duration(rapid.IntRange(0, n).Draw(d.T, what))
}

func (d draw) from(what string, names ...string) string {
	return rapid.SampledFrom(names).Draw(d.T, what)
}

func (d draw) number(what string, low, high int) int {
	return rapid.IntRange(low, high).Draw(d.T, what)
}

func (d draw) node() string { return d.from("node", "n1", "n2", "n3", "n4", "n5") }

func (d draw) env() string { return d.from("environment", "dev", "prod") }

func (d draw) request() armor.Request {
	if d.number("family", 0, 2) == 0 {
		return d.l.request("node/"+d.from("leader", "n1", "n2"), d.own())
	}
	if d.number("family", 0, 1) == 0 {
		return d.l.request(d.from("operator", "ada", "bob"), d.trust())
	}
	return d.l.request(d.from("operator", "ada", "ada", "bob"), d.change())
}

func (d draw) own() armor.Command {
	switch n := d.node(); d.number("own", 0, 4) {
	case 0:
		return d.l.join(n)
	case 1:
		return armor.BuryTombstones{Nodes: []armor.NodeID{armor.NodeID(n)}}
	case 2:
		return armor.PruneExpired{At: d.l.now}
	default:
		c := armor.SetShares{Pool: armor.ObjectKey(d.env(), "app")}
		for i := range d.number("shares", 1, 3) {
			c.Shares = append(c.Shares, armor.Share{
				Pool: c.Pool, Node: armor.NodeID(fmt.Sprint("n", i+1)),
				Granted: d.number("granted", 0, 8), Target: d.number("target", 0, 8),
			})
		}
		return c
	}
}

func (d draw) trust() armor.Command {
	name := d.from("name", "a", "b", "c")
	switch d.number("trust", 0, 10) {
	case 10:
		env := d.env()
		r, _ := d.l.state().Rotations.Get(env)
		return armor.MoveRotation{Environment: env, Revision: r.Revision, To: rapid.SampledFrom(armor.RotationPhases()).Draw(d.T, "phase"),
			Force: d.number("force", 0, 1) == 1}
	case 9:
		return armor.StartRotation{Environment: d.env(), Old: fingerprint("ca-" + d.from("old", "1", "2")), New: fingerprint("ca-" + d.from("new", "1", "2")),
			Compromised: d.number("compromised", 0, 3) == 0}
	case 8:
		c, _ := ca("ca-" + d.from("ca", "1", "2"))
		return armor.RetireAnchor{Anchor: c.Fingerprint, Undo: d.number("undo", 0, 1) == 1}
	case 7:
		return armor.PruneCertificates{EndedBefore: d.l.now.Add(-armor.KeptAfterEnd)}
	case 0:
		env := d.env()
		return d.l.anchor("ca-"+d.from("ca", "1", "2"), env, "spiffe://"+env+".acme/*")
	case 1:
		env := d.env()
		c := d.l.leaf(name, "ca-1", armor.Identity("spiffe://"+env+".acme/"+name))
		if name == "c" {
			c.NotAfter = epoch.Add(time.Minute)
		}
		return armor.RegisterCertificate{Record: armor.CertRecord{Certificate: c, Environment: env, Owner: "team"}}
	case 2:
		return armor.PutOperator{Operator: d.l.operator(d.from("operator", "ada", "bob"),
			rapid.SliceOfDistinct(rapid.SampledFrom(armor.OperatorRoles()),
				func(r armor.OperatorRole) armor.OperatorRole { return r }).Draw(d.T, "roles")...)}
	case 3:
		return armor.StageRevocations{Batch: batchID(name), Part: d.number("part", 1, 2), Selectors: []armor.Selector{d.selector(name)}}
	case 4:
		return d.activation(batchID(name))
	default:
		c := armor.Revoke{Reason: armor.KeyCompromise}
		for range d.number("selectors", 1, 2) {
			c.Selectors = append(c.Selectors, d.selector(name))
		}
		return c
	}
}

// activation is of what is staged, or of a part more.
func (d draw) activation(batch armor.RequestID) armor.Command {
	c := armor.RevokeStaged{Batch: batch, Parts: d.number("more", 0, 1), Reason: armor.Superseded}
	var all []armor.Selector
	for _, p := range d.l.state().Staged.Prefixed(armor.StagedBatch(batch)) {
		c.Parts++
		all = append(all, p.Selectors...)
	}
	c.Digest = armor.StagingDigest(all)
	return c
}

func (d draw) selector(name string) armor.Selector {
	switch d.number("selector", 0, 4) {
	case 0:
		return armor.Selector{Kind: armor.SelectIssuer, Issuer: digest("key", d.from("ca", "peer", "ca-1", "ca-2"))}
	case 1:
		return armor.Selector{Kind: armor.SelectKey, Key: digest("key", d.node())}
	case 2:
		return armor.Selector{Kind: armor.SelectCertificate, Certificate: d.l.nodeCert(d.node()).ID}
	case 3:
		return armor.Selector{Kind: armor.SelectKey, Key: d.l.operator(d.from("operator", "ada", "bob")).Certificate.Key}
	}
	s := armor.Selector{Kind: armor.SelectIdentity, Identity: armor.Pattern(d.from("identity",
		"spiffe://dev.acme/"+name, "spiffe://dev.acme/*", "spiffe://acme.armor.internal/operator/bob", "spiffe://acme.armor.internal/*"))}
	if d.number("spares", 0, 1) == 1 {
		s.IssuedBefore = d.l.now.Add(-d.upTo("before", 100) * time.Minute)
	}
	return s
}

func (d draw) change() armor.Command {
	n := d.node()
	switch d.number("change", 0, 5) {
	case 0:
		return d.l.token(n, time.Hour)
	case 1:
		return d.l.approve(n)
	case 2:
		return armor.RemoveMember{Node: armor.NodeID(n)}
	case 3:
		env := d.env()
		return armor.Apply{Delete: []armor.ObjectRef{{Kind: d.from("kind", "Pool", "Database", "Environment"),
			Environment: env, Name: d.from("object", "app", env)}}}
	default:
		env := d.env()
		return armor.Apply{Pools: []armor.Pool{pool(env, "app", "app", d.number("budget", 1, 20))}}
	}
}
