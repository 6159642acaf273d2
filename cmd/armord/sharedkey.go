package main

import (
	"crypto/hmac"
	"crypto/sha256"
)

// What keys that all nodes share are for.
const (
	decoys     = "armor decoy key"  // what clients see of roles without verifiers
	cancelKeys = "armor cancel key" // the proof in cancel keys of protocol 3.2
)

// sharedKey derives a key for one use: the same on all nodes and after each start, and
// known to nobody else.
func (c home) sharedKey(use string) ([]byte, error) {
	shared, err := c.gossipKey()
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write([]byte(use))
	return mac.Sum(nil), nil
}
