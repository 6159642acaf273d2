package password

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// ParseFile reads lines of "role" "verifier", as PgBouncer's auth_file has them: a quote
// inside is written twice; lines that begin with # or ; are comments. The verifiers are
// not looked at. Errors name lines and repeat nothing.
func ParseFile(text string) (map[string]string, error) {
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

// Pick finds a role's verifier among those of all roles that have one. The decoy of a
// role that has none looks like one of the others.
func Pick(all map[string]string, role string) (Found, error) {
	if len(all) == 0 {
		return Found{}, errNoVerifiers()
	}
	text, known := all[role]
	if !known {
		text = all[slices.Min(slices.Collect(maps.Keys(all)))]
	}
	v, err := Parse(text)
	if err != nil {
		return Found{}, err
	}
	return Found{v, known}, nil
}

// CheckAll says what is wrong with the first role's verifier that is unfit.
func CheckAll(all map[string]string) error {
	for _, role := range slices.Sorted(maps.Keys(all)) {
		if _, err := Parse(all[role]); err != nil {
			return fmt.Errorf("of role %q: %w", role, err)
		}
	}
	if len(all) == 0 {
		return errNoVerifiers()
	}
	return nil
}

func errNoVerifiers() error { return fmt.Errorf("%w: there are none", armor.ErrInvalid) }
