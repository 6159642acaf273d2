// Package manifest turns the cluster configuration's YAML into the words of package
// armor and back, and plans the way from what is to what was written.
//
// It reads no files and asks no node. It refuses what it does not know: a key that is
// misspelt must not pass for one that is absent.
//
// Invariant: what Marshal writes, Parse reads as the same objects, so the plan of an
// export is empty.
package manifest

import (
	"fmt"
	"maps"

	"github.com/armordb/armordb/armor"
)

// apiVersion is the only one there is.
const apiVersion = "armor/v1"

// kindNames are the kinds of object, for error texts.
const kindNames = armor.KindEnvironment + ", " + armor.KindDatabase + ", " + armor.KindPool + ", " + armor.KindIdentity

// Set is the objects of one or more files, in the order they were written. Defaults
// are filled in.
type Set struct {
	Environments []armor.Environment
	Databases    []armor.Database
	Pools        []armor.Pool
	Identities   []armor.IdentityConfig

	places map[armor.ObjectRef]string // where each object was written, file:line
}

// Merge returns the objects of both. It is ErrInvalid when one is in both, wherever
// they were written.
func (s Set) Merge(other Set) (Set, error) {
	for ref, place := range other.places {
		if first, twice := s.places[ref]; twice {
			return Set{}, fmt.Errorf("%w: %s is written at %s and again at %s", armor.ErrInvalid, ref, first, place)
		}
	}
	merged := Set{
		Environments: join(s.Environments, other.Environments),
		Databases:    join(s.Databases, other.Databases),
		Pools:        join(s.Pools, other.Pools),
		Identities:   join(s.Identities, other.Identities),
		places:       maps.Clone(s.places),
	}
	if merged.places == nil {
		merged.places = map[armor.ObjectRef]string{}
	}
	maps.Copy(merged.places, other.places)
	return merged, nil
}

func join[T any](a, b []T) []T { return append(a[:len(a):len(a)], b...) }
