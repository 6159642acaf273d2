package fsm

import (
	"slices"

	"github.com/armordb/armordb/armor"
)

// checkReferences walks the whole configuration. What refers to an object that this
// very command deletes is in the way of the deletion (ErrConflict); any other dangling
// reference is a mistake in what was put (ErrInvalid).
func (d *draft) checkReferences(deleted []armor.ObjectRef) error {
	missing := func(user, kind, environment, name string) error {
		target := objectName(kind, environment, name)
		if slices.ContainsFunc(deleted, func(r armor.ObjectRef) bool {
			return objectName(r.Kind, r.Environment, r.Name) == target
		}) {
			return refuse(armor.ErrConflict, "%s is in use by %s", target, user)
		}
		return refuse(armor.ErrInvalid, "%s refers to %s, which does not exist", user, target)
	}
	if err := d.checkEnvironments(missing); err != nil {
		return err
	}
	for _, p := range d.Pools.All() {
		if !d.Databases.Has(armor.ObjectKey(p.Environment, p.Database)) {
			return missing("pool "+p.Key(), "Database", p.Environment, p.Database)
		}
	}
	for _, i := range d.Identities.All() {
		for _, g := range i.Grants {
			if err := d.checkGrantTargets(i, g, missing); err != nil {
				return err
			}
		}
	}
	return nil
}

type missingFunc func(user, kind, environment, name string) error

// checkEnvironments checks that all that belongs to an environment has it still.
func (d *draft) checkEnvironments(missing missingFunc) error {
	check := func(user, environment string) error {
		if d.Environments.Has(environment) {
			return nil
		}
		return missing(user, "Environment", "", environment)
	}
	var errs []error
	for key, o := range d.Databases.All() {
		errs = append(errs, check("database "+key, o.Environment))
	}
	for key, p := range d.Pools.All() {
		errs = append(errs, check("pool "+key, p.Environment))
	}
	for key, i := range d.Identities.All() {
		errs = append(errs, check("identity "+key, i.Environment))
	}
	for _, a := range d.Anchors.All() {
		errs = append(errs, check("trust anchor "+a.Name, a.Environment))
	}
	for _, r := range d.Inventory.All() {
		errs = append(errs, check("certificate "+r.Certificate.ID.Serial, r.Environment))
	}
	return firstError(errs...)
}

// checkGrantTargets keeps a grant inside its environment, where its database and pool
// are looked up, and refuses a role that nobody could log in as.
func (d *draft) checkGrantTargets(i armor.IdentityConfig, g armor.Grant, missing missingFunc) error {
	user := "identity " + armor.ObjectKey(i.Environment, i.Name)
	if armor.IsConsole(g.Database) {
		return nil // it has neither
	}
	database, found := d.Databases.Get(armor.ObjectKey(i.Environment, g.Database))
	if !found {
		return missing(user, "Database", i.Environment, g.Database)
	}
	pool, found := d.Pools.Get(armor.ObjectKey(i.Environment, g.Pool))
	if !found {
		return missing(user, "Pool", i.Environment, g.Pool)
	}
	if pool.Database != g.Database {
		return refuse(armor.ErrInvalid, "%s would reach database %s through pool %s, which is a pool of database %s", user, g.Database, g.Pool, pool.Database)
	}
	if g.SecondFactor == armor.SCRAM && !database.ChecksPasswords() {
		return refuse(armor.ErrInvalid, "%s is asked for a password on database %s, which names no verifiers to check it by", user, armor.ObjectKey(i.Environment, g.Database))
	}
	for _, role := range g.Roles {
		if role == database.Query.Role {
			return refuse(armor.ErrInvalid, "%s is granted role %q, which database %s looks up passwords by: clients must not read them", user, role, armor.ObjectKey(i.Environment, g.Database))
		}
		if _, ok := database.Auth(role); !ok {
			return refuse(armor.ErrInvalid, "%s is granted role %q, for which database %s has no credential", user, role, armor.ObjectKey(i.Environment, g.Database))
		}
	}
	return nil
}
