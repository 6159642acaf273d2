package armor

import (
	"fmt"
	"slices"
)

// CheckReferences judges a configuration that is about to be published: all that an
// object refers to has to be there, in its own environment. What refers to an object that
// is deleted by this very change is in the way of the deletion (ErrConflict); any other
// dangling reference is a mistake in what was put (ErrInvalid).
//
// The state machine asks it of every change, manifest.Plan of what it plans.
func (s *State) CheckReferences(deleted []ObjectRef) error {
	r := references{s, deleted}
	if err := r.environments(); err != nil {
		return err
	}
	for _, p := range s.Pools.All() {
		if !s.Databases.Has(ObjectKey(p.Environment, p.Database)) {
			return r.missing(p.Ref(), ObjectRef{KindDatabase, p.Environment, p.Database})
		}
	}
	for _, i := range s.Identities.All() {
		for _, g := range i.Grants {
			if err := r.grant(i, g); err != nil {
				return err
			}
		}
	}
	return nil
}

// references are those of a state, some objects of which have just been deleted.
type references struct {
	*State
	deleted []ObjectRef
}

func (r references) missing(user fmt.Stringer, target ObjectRef) error {
	if slices.ContainsFunc(r.deleted, func(d ObjectRef) bool { return d.String() == target.String() }) {
		return fmt.Errorf("%w: %s is in use by %s", ErrConflict, target, user)
	}
	return fmt.Errorf("%w: %s refers to %s, which does not exist", ErrInvalid, user, target)
}

// owned is a row that belongs to an environment and is no object of the configuration.
type owned struct{ kind, name string }

func (o owned) String() string { return o.kind + " " + o.name }

// environments checks that all that belongs to an environment has it still.
func (r references) environments() error {
	for _, d := range r.Databases.All() {
		if !r.Environments.Has(d.Environment) {
			return r.homeless(d.Ref(), d.Environment)
		}
	}
	for _, p := range r.Pools.All() {
		if !r.Environments.Has(p.Environment) {
			return r.homeless(p.Ref(), p.Environment)
		}
	}
	for _, i := range r.Identities.All() {
		if !r.Environments.Has(i.Environment) {
			return r.homeless(i.Ref(), i.Environment)
		}
	}
	for _, a := range r.Anchors.All() {
		if !r.Environments.Has(a.Environment) {
			return r.homeless(owned{"trust anchor", a.Name}, a.Environment)
		}
	}
	for _, c := range r.Inventory.All() {
		if !r.Environments.Has(c.Environment) {
			return r.homeless(owned{"certificate", c.Certificate.ID.Serial}, c.Environment)
		}
	}
	return nil
}

func (r references) homeless(user fmt.Stringer, environment string) error {
	return r.missing(user, ObjectRef{Kind: KindEnvironment, Name: environment})
}

// grant keeps a grant inside its environment, where its database and pool are looked up,
// and refuses a role that nobody could log in as.
func (r references) grant(i IdentityConfig, g Grant) error {
	user := i.Ref()
	if IsConsole(g.Database) {
		return nil // it has neither
	}
	target := ObjectRef{KindDatabase, i.Environment, g.Database}
	database, found := r.Databases.Get(ObjectKey(i.Environment, g.Database))
	if !found {
		return r.missing(user, target)
	}
	pool, found := r.Pools.Get(ObjectKey(i.Environment, g.Pool))
	if !found {
		return r.missing(user, ObjectRef{KindPool, i.Environment, g.Pool})
	}
	if pool.Database != g.Database {
		return fmt.Errorf("%w: %s would reach database %s through pool %s, which is a pool of database %s",
			ErrInvalid, user, g.Database, g.Pool, pool.Database)
	}
	if g.SecondFactor == SCRAM && !database.ChecksPasswords() {
		return fmt.Errorf("%w: %s is asked for a password on %s, which names no verifiers to check it by", ErrInvalid, user, target)
	}
	return database.checkGranted(user, g.Roles)
}

func (d Database) checkGranted(user ObjectRef, roles []string) error {
	for _, role := range roles {
		if role == d.Query.Role {
			return fmt.Errorf("%w: %s is granted role %q, which database %s looks up passwords by: clients must not read them",
				ErrInvalid, user, role, d.Key())
		}
		if _, ok := d.Auth(role); !ok {
			return fmt.Errorf("%w: %s is granted role %q, for which database %s has no credential", ErrInvalid, user, role, d.Key())
		}
	}
	return nil
}

// CheckIdentity judges an identity that is about to be put into a state, which does not
// hold a former one of its name any more: nobody else may speak for its pattern
// (ErrConflict), and some trust anchor of its environment must be able to vouch for it
// (ErrInvalid). While there is no anchor yet, configuration may come first.
func (s *State) CheckIdentity(i IdentityConfig) error {
	if other, taken := s.Grants.Get(ObjectKey(i.Environment, string(i.ID))); taken {
		return fmt.Errorf("%w: identity %s of the same environment has the same id %s: put all grants into one", ErrConflict, other, i.ID)
	}
	anchors := 0
	for _, a := range s.Anchors.All() {
		if a.Environment != i.Environment {
			continue
		}
		anchors++
		if a.Prefix.Covers(i.ID) || i.ID.Covers(a.Prefix) {
			return nil
		}
	}
	if anchors == 0 {
		return nil
	}
	return fmt.Errorf("%w: no trust anchor of environment %s may vouch for %s", ErrInvalid, i.Environment, i.ID)
}
