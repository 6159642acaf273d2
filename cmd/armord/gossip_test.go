package main

import (
	"slices"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// TestOthersAreFoundWhenAllHaveMoved: the state has only former addresses then, and the
// configuration has the new ones.
func TestOthersAreFoundWhenAllHaveMoved(t *testing.T) {
	members := slices.Values([]armor.Member{
		{ID: "n1", PeerAddress: "10.1.0.1:6433"}, {ID: "n2", PeerAddress: "10.1.0.2:6433"}, {ID: "n3", PeerAddress: "db3.acme.test:6433"},
	})
	c := config.Config{
		Node: "n2", Gossip: config.Gossip{Listen: "10.2.0.2:7000", Join: []string{"10.2.0.9:7001"}},
		Join: config.Join{Addresses: []string{"10.2.0.1:6433", "[fd00::3]:6433"}},
	}
	want := []string{"10.2.0.9:7001", "10.1.0.1:7000", "db3.acme.test:7000", "10.2.0.1:7000", "[fd00::3]:7000"}
	if got := gossipAddresses(c, members); !slices.Equal(got, want) {
		t.Errorf("it looks at %v, not at %v", got, want)
	}
}
