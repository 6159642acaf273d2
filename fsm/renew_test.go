package fsm

import (
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// renewal is another certificate of a node's key, which ends later by d.
func (l *lab) renewal(n string, d time.Duration) armor.RenewMember {
	der := append(nodeDER(n), " renewed "+d.String()...)
	c := l.nodeCert(n)
	c.ID.Serial, c.Fingerprint, c.NotAfter = "7"+c.ID.Serial, sha256.Sum256(der), c.NotAfter.Add(d)
	return armor.RenewMember{Node: armor.NodeID(n), Certificate: c, Chain: [][]byte{der, cluster.PeerCA}}
}

func TestARenewedNodeIsTheSameNode(t *testing.T) {
	l := governed(t, "n2", "n3")
	before, _ := l.state().Members.Get("n2")
	c := l.renewal("n2", time.Hour)
	for range 2 { // again, as a retry with another id
		l.must(l.by("ada", c))
	}
	after, _ := l.state().Members.Get("n2")
	if after.Certificate != c.Certificate || len(after.Chain) != 2 {
		t.Errorf("after: %+v", after)
	}
	after.Certificate, after.Chain = before.Certificate, nil
	if !same(after, before) {
		t.Errorf("more has changed: %+v, was %+v", after, before)
	}
}

func TestOnlyALaterCertificateOfTheSameKeyRenewsANode(t *testing.T) {
	l := governed(t, "n2", "n3")
	l.must(l.by("ada", l.renewal("n2", 2*time.Hour)))
	for name, c := range map[string]struct {
		spoil func(*armor.RenewMember)
		want  error
	}{
		"another key":      {func(c *armor.RenewMember) { c.Certificate.Key = digest("key", "thief") }, armor.ErrConflict},
		"an earlier end":   {func(c *armor.RenewMember) { *c = l.renewal("n2", time.Hour) }, armor.ErrConflict},
		"another node's":   {func(c *armor.RenewMember) { c.Node = "n3" }, armor.ErrInvalid},
		"an unknown node":  {func(c *armor.RenewMember) { c.Node = "n9" }, armor.ErrNotFound},
		"no chain":         {func(c *armor.RenewMember) { c.Chain = nil }, armor.ErrInvalid},
		"another's chain":  {func(c *armor.RenewMember) { c.Chain[0] = []byte("DER of another") }, armor.ErrInvalid},
		"what is over":     {func(c *armor.RenewMember) { c.Certificate.NotAfter = epoch.Add(-time.Second) }, armor.ErrInvalid},
		"an operator's id": {func(c *armor.RenewMember) { c.Certificate.Identity = cluster.OperatorIdentity("n2") }, armor.ErrInvalid},
	} {
		request := l.renewal("n2", 3*time.Hour)
		c.spoil(&request)
		if err := l.by("ada", request).Err; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := l.node("n1", l.renewal("n2", 3*time.Hour)).Err; !errors.Is(err, armor.ErrDenied) {
		t.Errorf("by a node: %v", err)
	}
	l.must(l.by("ada", armor.Revoke{Reason: armor.KeyCompromise, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: l.nodeCert("n2").Key}}}))
	if err := l.by("ada", l.renewal("n2", 3*time.Hour)).Err; !errors.Is(err, armor.ErrRevoked) {
		t.Errorf("of a revoked key: %v", err)
	}
}
