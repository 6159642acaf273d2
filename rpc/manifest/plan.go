package manifest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/armordb/armordb/armor"
)

// Op is what a plan does with one object.
type Op string

const (
	Create Op = "create" // the state has none of its name
	Update Op = "update" // the state has another
	Delete Op = "delete" // it is to go
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

// Term is what a plan is told beside what was written.
type Term string

// AddBudgets has pools lead to one role of one database each with a budget of its own.
const AddBudgets Term = "add budgets"

// Plan compares what was written with what is, and makes the command that leads there:
// objects that are in the set and differ, and those named in deletes. Objects in
// neither stay as they are. The command holds against this state only
// (Apply.IfRevision).
//
// What the machine would refuse is refused here, as far as the tables of s tell: a
// reference to what is not there or would be gone, a second identity of one id, an id
// that no trust anchor may vouch for, pools that lead to one place. It is ErrNotFound to delete what is not there, and
// ErrInvalid to delete what the set contains.
func Plan(s *armor.State, set Set, deletes []armor.ObjectRef, terms ...Term) ([]Change, armor.Apply, error) {
	planned := *s
	p := &planning{before: s, state: &planned, apply: armor.Apply{IfRevision: s.Revision, AddBudgets: slices.Contains(terms, AddBudgets)}}
	if err := p.compare(set); err != nil {
		return nil, armor.Apply{}, err
	}
	for _, ref := range deletes {
		if err := p.delete(set, ref); err != nil {
			return nil, armor.Apply{}, err
		}
	}
	if err := p.check(); err != nil {
		return nil, armor.Apply{}, err
	}
	return p.changes, p.apply, nil
}

// planning is one Plan in progress.
type planning struct {
	before  *armor.State
	state   *armor.State // from what is on the way to what is planned
	changes []Change
	apply   armor.Apply
}

func (p *planning) compare(set Set) (err error) {
	if p.apply.Environments, err = differing(p, armor.Environments, set.Environments, environmentDocument); err != nil {
		return err
	}
	if p.apply.Databases, err = differing(p, armor.Databases, set.Databases, databaseDocument); err != nil {
		return err
	}
	if p.apply.Pools, err = differing(p, armor.Pools, set.Pools, poolDocument); err != nil {
		return err
	}
	p.apply.Identities, err = differing(p, armor.Identities, set.Identities, identityDocument)
	return err
}

// differing returns the objects that are new or another than in the state.
func differing[V armor.Row, S any](p *planning, t *armor.TableOf[V], written []V, document func(V) document[S]) ([]V, error) {
	var differ []V
	for _, v := range written {
		doc := document(v)
		change := Change{Op: Create, Kind: string(doc.Kind), Environment: string(doc.Metadata.Environment), Name: string(doc.Metadata.Name)}
		if old, found := t.Find(p.state, v); found {
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

func (p *planning) delete(set Set, ref armor.ObjectRef) error {
	if place, kept := set.places[ref]; kept {
		return fmt.Errorf("%w: %s is to be deleted, and is written at %s", armor.ErrInvalid, ref, place)
	}
	found := false
	switch ref.Kind {
	case armor.KindEnvironment:
		found = remove(p, armor.Environments, armor.Environment{Name: ref.Name})
	case armor.KindDatabase:
		found = remove(p, armor.Databases, armor.Database{Environment: ref.Environment, Name: ref.Name})
	case armor.KindPool:
		found = remove(p, armor.Pools, armor.Pool{Environment: ref.Environment, Name: ref.Name})
	case armor.KindIdentity:
		found = remove(p, armor.Identities, armor.IdentityConfig{Environment: ref.Environment, Name: ref.Name})
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

// remove takes the row that has the key of like out of the planned state, and reports
// whether there was one.
func remove[V armor.Row](p *planning, t *armor.TableOf[V], like V) bool {
	old, found := t.Find(p.state, like)
	if found {
		t.Remove(p.state, old)
	}
	return found
}

// check makes the planned state and judges it, as the machine does. A plan that changes
// nothing makes nothing worse.
func (p *planning) check() error {
	if len(p.changes) == 0 {
		return nil
	}
	armor.Environments.Put(p.state, p.apply.Environments...)
	armor.Databases.Put(p.state, p.apply.Databases...)
	armor.Pools.Put(p.state, p.apply.Pools...)
	if err := p.putIdentities(); err != nil {
		return err
	}
	if err := p.state.CheckReferences(p.apply.Delete); err != nil || p.apply.AddBudgets {
		return err
	}
	return p.state.CheckBudgets(p.before)
}

// putIdentities takes all that change out first, so that two may swap their ids.
func (p *planning) putIdentities() error {
	for _, i := range p.apply.Identities {
		remove(p, armor.Identities, i)
	}
	for _, i := range p.apply.Identities {
		if err := p.state.CheckIdentity(i); err != nil {
			return fmt.Errorf("%s: %w", i.Ref(), err)
		}
		armor.Identities.Put(p.state, i)
	}
	return nil
}
