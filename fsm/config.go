package fsm

import (
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// apply changes the configuration: all of it or nothing. Objects are judged by
// themselves as they are put, and by what they refer to once all are in place.
func (d *draft) apply(c armor.Apply) error {
	before := *d.State
	if err := d.checkRevision(c.IfRevision); err != nil {
		return err
	}
	if err := checkNamedOnce(c); err != nil {
		return err
	}
	for _, e := range c.Environments {
		if err := d.putEnvironment(e); err != nil {
			return err
		}
	}
	if err := d.putObjects(c); err != nil {
		return err
	}
	for _, ref := range c.Delete {
		if err := d.delete(ref); err != nil {
			return err
		}
	}
	if err := d.CheckReferences(c.Delete); err != nil {
		return err
	}
	if d.level >= 7 && !c.AddBudgets {
		if err := d.CheckBudgets(&before); err != nil {
			return err
		}
	}
	return d.cutShares(c)
}

// checkRevision is the compare of compare-and-swap. Only what Apply itself can change
// counts: shares that move and nodes that join meanwhile invalidate no plan.
func (d *draft) checkRevision(planned uint64) error {
	switch {
	case planned == 0:
		return nil
	case planned >= d.Revision:
		return refuse(armor.ErrInvalid, "revision %d has not come yet: this is %d", planned, d.Revision)
	case d.configured > planned:
		return refuse(armor.ErrConflict,
			"the configuration was changed by revision %d, and the plan was made at %d: plan again", d.configured, planned)
	}
	return nil
}

func checkNamedOnce(c armor.Apply) error {
	seen := map[string]bool{}
	for _, ref := range named(c) {
		if seen[ref.String()] {
			return refuse(armor.ErrInvalid, "%s is named twice", ref)
		}
		seen[ref.String()] = true
	}
	return nil
}

// named are the objects that a command is about.
func named(c armor.Apply) []armor.ObjectRef {
	var refs []armor.ObjectRef
	for _, e := range c.Environments {
		refs = append(refs, e.Ref())
	}
	for _, o := range c.Databases {
		refs = append(refs, o.Ref())
	}
	for _, p := range c.Pools {
		refs = append(refs, p.Ref())
	}
	for _, i := range c.Identities {
		refs = append(refs, i.Ref())
	}
	return append(refs, c.Delete...)
}

// putObjects first takes the patterns of the identities that change out of the index,
// so that two may swap theirs.
func (d *draft) putObjects(c armor.Apply) error {
	for _, o := range c.Databases {
		if err := d.putDatabase(o); err != nil {
			return describe(err, "%s", o.Ref())
		}
	}
	for _, p := range c.Pools {
		if err := d.putPool(p); err != nil {
			return describe(err, "%s", p.Ref())
		}
	}
	for _, i := range c.Identities {
		d.forgetGrant(i.Environment, i.Name)
	}
	for _, ref := range c.Delete {
		if ref.Kind == armor.KindIdentity {
			d.forgetGrant(ref.Environment, ref.Name)
		}
	}
	for _, i := range c.Identities {
		if err := d.putIdentity(i); err != nil {
			return describe(err, "%s", i.Ref())
		}
	}
	return nil
}

func (d *draft) forgetGrant(environment, name string) {
	if old, had := d.Identities.Get(armor.ObjectKey(environment, name)); had {
		d.Grants = d.Grants.Without(armor.ObjectKey(environment, string(old.ID)))
	}
}

func (d *draft) putDatabase(o armor.Database) error {
	if err := o.Check(); err != nil {
		return err
	}
	slices.SortFunc(o.Roles, func(a, b armor.RoleAuth) int { return strings.Compare(a.Role, b.Role) })
	d.configure(change(d, armor.Databases, o))
	return nil
}

func (d *draft) putPool(p armor.Pool) error {
	p = p.WithDefaults()
	if err := p.Check(); err != nil {
		return err
	}
	// A pool that was deleted and comes back must not open a second budget beside
	// the server connections of the first.
	if left := d.SharesOf(p.Key()); !d.Pools.Has(p.Key()) && len(left) > 0 {
		return refuse(armor.ErrConflict,
			"a deleted pool of that name still has %d server connections granted: try again once they are closed", granted(left))
	}
	d.configure(change(d, armor.Pools, p))
	return nil
}

func (d *draft) putIdentity(i armor.IdentityConfig) error {
	if err := i.Check(); err != nil {
		return err
	}
	if err := d.CheckIdentity(i); err != nil {
		return err
	}
	d.configure(change(d, armor.Identities, i))
	return nil
}

func (d *draft) delete(ref armor.ObjectRef) error {
	found := false
	switch ref.Kind {
	case armor.KindEnvironment:
		found = remove(d, armor.Environments, armor.Environment{Name: ref.Name})
	case armor.KindDatabase:
		found = remove(d, armor.Databases, armor.Database{Environment: ref.Environment, Name: ref.Name})
	case armor.KindPool:
		p := armor.Pool{Environment: ref.Environment, Name: ref.Name}
		if found = remove(d, armor.Pools, p); found {
			d.retire(p.Key())
		}
	case armor.KindIdentity:
		found = remove(d, armor.Identities, armor.IdentityConfig{Environment: ref.Environment, Name: ref.Name})
	default:
		return refuse(armor.ErrInvalid, "kind %.40q is not one of Environment, Database, Pool, Identity", ref.Kind)
	}
	if !found {
		return refuse(armor.ErrNotFound, "there is no %s", ref)
	}
	d.configure(true)
	return nil
}

// cutShares levels the pools whose budget is new.
func (d *draft) cutShares(c armor.Apply) error {
	for _, changed := range c.Pools {
		p, _ := d.Pools.Get(changed.Key())
		if targeted(d.SharesOf(p.Key())) == p.Budget {
			continue
		}
		if err := d.levelPool(p); err != nil {
			return err
		}
	}
	return nil
}
