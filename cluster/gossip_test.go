package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster/memnet"
	"github.com/armordb/armordb/fsm"
)

// patient is the deadline of what should happen soon, on real sockets.
const patient = 20 * time.Second

func TestGossipMetadataIsReadBack(t *testing.T) {
	m := meta{Cluster: labCluster, Epoch: 7, PeerAddress: "10.0.0.1:7432", Version: "1.2.3"}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeMeta(b); err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := decodeMeta(append(b, "what a later version says"...)); err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := decodeMeta(b[:n]); !errors.Is(err, armor.ErrInvalid) {
			t.Fatalf("%d bytes of %d: %v", n, len(b), err)
		}
	}
	m.PeerAddress = strings.Repeat("a", maxMetaAddress+1)
	if _, err := m.encode(); !errors.Is(err, armor.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	seed, _ := meta{Cluster: labCluster, Epoch: 7, PeerAddress: "a:1", Version: "v"}.encode()
	f.Add(seed)
	f.Add([]byte{metaFormat, 0, 0, 0, 0, 0, 0, 0, 0, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Fatalf("%x was read as %+v", b, m)
		}
	})
}

func TestGossipDemandsAKeyOfItsSize(t *testing.T) {
	for name, keys := range map[string][][]byte{"none": nil, "short": {make([]byte, 16)}} {
		cfg := &GossipConfig{Listen: "127.0.0.1:0", Keys: keys}
		if err := cfg.validate(); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// gossiper runs nothing but a node's gossip, with a key and in a cluster.
func gossiper(t *testing.T, id armor.NodeID, cluster string, key byte, join ...string) *Node {
	t.Helper()
	n, err := New(Config{
		Node: id, DataDir: t.TempDir(), Machine: fsm.New(), Network: memnet.New().Host(id), Courier: labCourier{},
		PeerAddress: string(id) + ":7432",
		Cluster:     cluster, Gossip: &GossipConfig{
			Listen: "127.0.0.1:0", Keys: [][]byte{bytes.Repeat([]byte{key}, gossipKeySize)}, Join: func() []string { return join },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.gossips(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	soon(t, "gossip begins", func() bool { return n.GossipAddress() != "" })
	return n
}

func soon(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patient); !yes(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func (n *Node) sees(others ...armor.NodeID) bool {
	g := n.gossip.Load()
	return g != nil && slices.Equal(g.alive(), others)
}

func TestGossipSeesItsOwnAndNobodyElse(t *testing.T) {
	a := gossiper(t, "a", labCluster, 1)
	// One has another key, one is of another cluster.
	gossiper(t, "x", labCluster, 2, a.GossipAddress())
	gossiper(t, "y", "another", 1, a.GossipAddress())
	b := gossiper(t, "b", labCluster, 1, a.GossipAddress())
	soon(t, "a and b see each other", func() bool { return a.sees("a", "b") && b.sees("a", "b") })
	if address, ok := a.Hint("b"); !ok || address != "b:7432" {
		t.Fatalf("hint %q, %v", address, ok)
	}
	if _, ok := a.Hint("x"); ok {
		t.Fatal("hints at a stranger")
	}
}

func TestGossipAddsNobodyToTheCluster(t *testing.T) {
	a := gossiper(t, "a", labCluster, 1)
	liar := gossiper(t, "b", labCluster, 1, a.GossipAddress())
	soon(t, "a sees the liar", func() bool { return a.sees("a", "b") && liar.sees("a", "b") })
	state, _ := a.Current()
	if state.Members.Len() != 0 || a.knows("b") || a.maySpeak(t.Context(), "b", nil) == nil {
		t.Fatal("gossip made somebody a member or a voter")
	}
}
