package tlsedge

import (
	"crypto/tls"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

// sendCancel sends a cancel request, over TLS if there is a certificate, and returns once
// the edge has closed.
func (r *rig) sendCancel(t testing.TB, cert *tls.Certificate) {
	t.Helper()
	conn := r.dial(t)
	to := io.ReadWriter(conn)
	if cert != nil {
		secured, err := upgrade(conn, r.clientConfig(cert))
		if err != nil {
			t.Fatal(err)
		}
		to = secured
	}
	if _, err := to.Write(cancelRequest(7, 9)); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(to); len(answer) > 0 { // PostgreSQL answers by closing
		t.Errorf("answered %q", answer)
	}
}

// results counts what became of cancel requests.
type results struct{ carried, refused, limited atomic.Int32 }

func (r *results) hook(c *Config) {
	c.Hooks.Cancel = func(result string) {
		map[string]*atomic.Int32{CancelCarried: &r.carried, CancelRefused: &r.refused, CancelLimited: &r.limited}[result].Add(1)
	}
}

// TestOneLimitIsForAllCancels: with TLS and without, from one source.
func TestOneLimitIsForAllCancels(t *testing.T) {
	var n results
	r := newRig(t, n.hook, func(c *Config) { c.CancelsPerSecond = 0.001 }) // a burst of one
	cert := r.ca.Leaf(t, appID)
	r.sendCancel(t, nil)
	r.sendCancel(t, &cert)
	r.sendCancel(t, &cert)
	r.sendCancel(t, nil)
	if r.cancel.count() != 1 || n.carried.Load() != 1 || n.limited.Load() != 3 {
		t.Fatalf("%d passed on; %d carried, %d limited", r.cancel.count(), n.carried.Load(), n.limited.Load())
	}
}

// TestManySourcesDoNotGuessFasterThanTheLimitOfAll.
func TestManySourcesDoNotGuessFasterThanTheLimitOfAll(t *testing.T) {
	c, allowed := newCancels(0.001), 0
	for n := range 2400 {
		if c.allow(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})) {
			allowed++
		}
	}
	if allowed != cancelsOfAll {
		t.Fatalf("%d of 2,400 guesses pass", allowed)
	}
}

// TestWhoWouldBeRefusedASessionCancelsNothing, and is told nothing.
func TestWhoWouldBeRefusedASessionCancelsNothing(t *testing.T) {
	for name, spoil := range map[string]func(*rig){
		"nothing": func(*rig) {},
		"revoked": func(r *rig) {
			r.trust.Publish(testca.Revoked(armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://production.test" + appID}))
		},
		"expired": func(r *rig) { r.lease.Advance(2 * time.Hour) },
		"no identity": func(r *rig) {
			r.trust.Publish(func(s *armor.State) { s.Identities, s.Grants = armor.Table[armor.IdentityConfig]{}, armor.Index{} })
		},
		"no grant": func(r *rig) {
			r.trust.Publish(testca.Granted("production", "spiffe://production.test"+appID))
		},
		"no grant from here": func(r *rig) {
			g := ordersGrant()
			g.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			r.trust.Publish(testca.Granted("production", "spiffe://production.test"+appID, g))
		},
		"stale": func(r *rig) { r.lease.SetStale(true, false) },
	} {
		t.Run(name, func(t *testing.T) {
			var n results
			r := newRig(t, n.hook)
			cert := r.ca.Leaf(t, appID)
			spoil(r)
			r.sendCancel(t, &cert)
			carried, refused := n.carried.Load(), n.refused.Load()
			if name == "nothing" {
				if carried != 1 || refused != 0 || r.cancel.count() != 1 {
					t.Fatalf("%d carried, %d refused", carried, refused)
				}
				return
			}
			if carried != 0 || refused != 1 || r.cancel.count() != 0 {
				t.Fatalf("%d carried, %d refused", carried, refused)
			}
		})
	}
}
