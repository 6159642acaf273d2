package armor_test

import (
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestEveryCommandNamesWhatItIsAbout(t *testing.T) {
	for _, c := range armor.Commands() {
		if bury, ok := c.(armor.BuryTombstones); ok {
			bury.Nodes = []armor.NodeID{"n1"}
			c = bury
		}
		if apply, ok := c.(armor.Apply); ok {
			apply.Identities = []armor.IdentityConfig{{Name: "checkout", Environment: "production"}}
			c = apply
		}
		if armor.Objects(c, 100) == "" {
			t.Errorf("%s names nothing", c.Kind())
		}
	}
}

func TestALineNamesNoMoreThanItHasRoomFor(t *testing.T) {
	r := armor.Revoke{Reason: armor.Superseded}
	for i := range 1000 {
		r.Selectors = append(r.Selectors, armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{byte(i)}})
	}
	text := armor.Objects(r, 500)
	if len(text) > 600 || !strings.HasPrefix(text, "reason superseded, key 00") || !strings.Contains(text, ", and 99") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	token := armor.CreateJoinToken{Token: armor.JoinToken{Node: "n4", Hash: armor.Digest{9}}}
	if text := armor.Objects(token, 500); text != "token for node n4" {
		t.Errorf("a token: %s", text)
	}
	long := armor.PutOperator{Operator: armor.Operator{Name: strings.Repeat("ü", 1000)}}
	if text := armor.Objects(long, 501); len(text) > 520 {
		t.Errorf("a long name: %d bytes", len(text))
	}
}
