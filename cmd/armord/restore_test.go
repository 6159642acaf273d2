package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/rpc"
)

// TestWhatIsNoSavedStateLeavesNothing of itself on the node that was to go on from it.
func TestWhatIsNoSavedStateLeavesNothing(t *testing.T) {
	r := newRenewable(t)
	if err := r.cfg.makeFolders(); err != nil {
		t.Fatal(err)
	}
	before := sumOf(t, r.cfg.DataDir)
	for name, c := range map[string]struct {
		data rpc.RestoreData
		file string
	}{
		"garbage": {rpc.RestoreData{PeerCAs: [][]byte{r.ca.Raw}, Chain: [][]byte{r.ca.Raw}, GossipKey: make([]byte, 32)}, "no state at all"},
		"nothing": {rpc.RestoreData{PeerCAs: [][]byte{r.ca.Raw}}, ""},
		"no CA":   {rpc.RestoreData{PeerCAs: [][]byte{[]byte("DER")}}, "no state at all"},
	} {
		if err := r.cfg.restore(c.data, nil, strings.NewReader(c.file)); err == nil {
			t.Errorf("%s is restored", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.cfg.DataDir, "peer", "restoring-*")); len(left) > 0 || sumOf(t, r.cfg.DataDir) != before {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(r.cfg.DataDir, "raft")); err == nil {
		t.Error("there is a log")
	}
}
