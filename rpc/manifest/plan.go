package manifest

import (
	"bytes"
	"fmt"

	"github.com/armordb/armordb/armor"
)

// Op is what a plan does with one object.
type Op string

const (
	Create Op = "create"
	Update Op = "update"
	Delete Op = "delete"
)

// Change is what a plan does with one object.
type Change struct {
	Op          Op
	Kind        string // Environment, Database, Pool, Identity
	Environment string // empty for an Environment
	Name        string
	Fields      []FieldChange // of an Update
}

// FieldChange is one field that differs, in the manifest's own spelling.
type FieldChange struct {
	Path     string // such as spec.grants[0].roles
	Old, New string // YAML on one line; empty: not set
}

// Plan compares what was written with what is, and makes the command that leads there:
// objects that are in the set and differ, and those named in deletes. Objects in
// neither stay as they are. The command holds against this state only
// (Apply.IfRevision). It is ErrNotFound to delete what is not there, and ErrInvalid
// to delete what the set contains.
func Plan(s *armor.State, set Set, deletes []armor.ObjectRef) ([]Change, armor.Apply, error) {
	p := &planning{apply: armor.Apply{IfRevision: s.Revision}}
	var err error
	if p.apply.Environments, err = compare(p, set.Environments, s.Environments, environmentDocument); err != nil {
		return nil, armor.Apply{}, err
	}
	if p.apply.Databases, err = compare(p, set.Databases, s.Databases, databaseDocument); err != nil {
		return nil, armor.Apply{}, err
	}
	if p.apply.Pools, err = compare(p, set.Pools, s.Pools, poolDocument); err != nil {
		return nil, armor.Apply{}, err
	}
	if p.apply.Identities, err = compare(p, set.Identities, s.Identities, identityDocument); err != nil {
		return nil, armor.Apply{}, err
	}
	for _, ref := range deletes {
		if err := p.delete(s, set, ref); err != nil {
			return nil, armor.Apply{}, err
		}
	}
	return p.changes, p.apply, nil
}

type planning struct {
	changes []Change
	apply   armor.Apply
}

// compare returns the objects that are new or differ.
func compare[V armor.Row, S any](p *planning, written []V, have armor.Table[V], document func(V) document[S]) ([]V, error) {
	var differ []V
	for _, v := range written {
		doc := document(v)
		change := Change{Op: Create, Kind: string(doc.Kind), Environment: string(doc.Metadata.Environment), Name: string(doc.Metadata.Name)}
		if old, found := have.Get(v.Key()); found {
			if bytes.Equal(armor.Canonical(old), armor.Canonical(v)) {
				continue
			}
			fields, err := fieldChanges(document(old).Spec, doc.Spec)
			if err != nil {
				return nil, fmt.Errorf("compare %s %s: %w", doc.Kind, doc.Metadata.Name, err)
			}
			change.Op, change.Fields = Update, fields
		}
		p.changes, differ = append(p.changes, change), append(differ, v)
	}
	return differ, nil
}

func (p *planning) delete(s *armor.State, set Set, ref armor.ObjectRef) error {
	if place, kept := set.places[ref]; kept {
		return fmt.Errorf("%w: %s is to be deleted, and is written at %s", armor.ErrInvalid, ref, place)
	}
	key := armor.ObjectKey(ref.Environment, ref.Name)
	found := false
	switch ref.Kind {
	case armor.KindEnvironment:
		found = s.Environments.Has(ref.Name)
	case armor.KindDatabase:
		found = s.Databases.Has(key)
	case armor.KindPool:
		found = s.Pools.Has(key)
	case armor.KindIdentity:
		found = s.Identities.Has(key)
	default:
		return fmt.Errorf("%w: kind %q is not one of %s", armor.ErrInvalid, clip(ref.Kind), kindNames)
	}
	if !found {
		return fmt.Errorf("%w: there is no %s", armor.ErrNotFound, ref)
	}
	p.apply.Delete = append(p.apply.Delete, ref)
	p.changes = append(p.changes, Change{Op: Delete, Kind: ref.Kind, Environment: ref.Environment, Name: ref.Name})
	return nil
}
