package main

import (
	"fmt"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/password"
)

// Verifiers returns the SCRAM verifiers in NAME.verifiers by role (pooler.Secrets).
func (s secrets) Verifiers(name armor.SecretName) (map[string]string, error) {
	text, err := s.read(name, ".verifiers", 0o077)
	if err != nil {
		return nil, err
	}
	all, err := password.ParseFile(string(text))
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return all, nil
}
