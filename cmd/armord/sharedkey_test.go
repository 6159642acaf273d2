package main

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"testing"
)

func TestDecoyKeyIsSharedAndIsNotTheGossipKey(t *testing.T) {
	keyOf := func(b byte) []byte {
		var cfg home
		cfg.Gossip.KeyFile = filepath.Join(t.TempDir(), "gossip.key")
		gossip := bytes.Repeat([]byte{b}, gossipKeySize)
		put(t, cfg.Gossip.KeyFile, base64.StdEncoding.EncodeToString(gossip)+"\n")
		key, err := cfg.sharedKey(decoys)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(key, gossip) || bytes.Contains(gossip, key) {
			t.Errorf("the gossip key shows in %x", key)
		}
		return key
	}
	if !bytes.Equal(keyOf(1), keyOf(1)) {
		t.Error("two nodes with one gossip key have different decoy keys")
	}
	if bytes.Equal(keyOf(1), keyOf(2)) {
		t.Error("two clusters have the same decoy key")
	}
	if _, err := (home{}).sharedKey(decoys); err == nil {
		t.Error("no gossip key is no error")
	}
}
