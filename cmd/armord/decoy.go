package main

import (
	"crypto/hmac"
	"crypto/sha256"
)

// decoyKey derives the key of what clients see of roles without verifiers: the same on
// all nodes and after each start, and known to nobody else.
func (c Config) decoyKey() ([]byte, error) {
	shared, err := c.gossipKey()
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write([]byte("armor decoy key"))
	return mac.Sum(nil), nil
}
