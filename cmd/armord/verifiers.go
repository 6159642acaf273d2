package main

import (
	"fmt"
	"strings"

	"github.com/armordb/armordb/armor"
)

// Verifiers returns the SCRAM verifiers in NAME.verifiers by role (pooler.Secrets).
func (s secrets) Verifiers(name armor.SecretName) (map[string]string, error) {
	text, err := s.read(name, ".verifiers", 0o077)
	if err != nil {
		return nil, err
	}
	all, err := parseVerifiers(string(text))
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return all, nil
}

// parseVerifiers reads lines of "role" "verifier", as PgBouncer's auth_file has them: a
// quote inside is written twice; lines that begin with # or ; are comments. Errors
// name lines and repeat nothing.
func parseVerifiers(text string) (map[string]string, error) {
	all := map[string]string{}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		role, rest, ok := armor.CutQuoted(line, '"')
		verifier, rest, alsoOK := armor.CutQuoted(strings.TrimSpace(rest), '"')
		switch _, twice := all[role]; {
		case !ok || !alsoOK || rest != "" || role == "":
			return nil, fmt.Errorf(`%w: line %d of its file is not "role" "verifier"`, armor.ErrInvalid, n+1)
		case twice:
			return nil, fmt.Errorf("%w: line %d of its file is about a role that has one already", armor.ErrInvalid, n+1)
		}
		all[role] = verifier
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: its file holds no verifiers", armor.ErrInvalid)
	}
	return all, nil
}
