package fsm

import (
	"slices"

	"github.com/armordb/armordb/armor"
)

// putOperator adds an operator or changes one. An operator without roles may only
// read, which is how one is retired.
func (d *draft) putOperator(o armor.Operator) error {
	if err := d.checkOperator(o); err != nil {
		return err
	}
	for _, other := range d.Operators.All() {
		if other.Name != o.Name && other.Certificate.Key == o.Certificate.Key {
			return refuse(armor.ErrConflict, "operator %s has the same key: what either does could not be told apart", other.Name)
		}
	}
	before := d.strength()
	slices.Sort(o.Roles)
	put(d, armor.Operators, o)
	return before.mayBecome(d.strength())
}

func (d *draft) checkOperator(o armor.Operator) error {
	if err := armor.CheckName("operator", o.Name); err != nil {
		return err
	}
	if err := d.checkOwn(o.Certificate, d.Cluster.OperatorIdentity(o.Name)); err != nil {
		return describe(err, "operator %s", o.Name)
	}
	for i, role := range o.Roles {
		if !slices.Contains(armor.OperatorRoles(), role) {
			return refuse(armor.ErrInvalid, "operator %s: role %.40q is not one of %v", o.Name, role, armor.OperatorRoles())
		}
		if slices.Contains(o.Roles[:i], role) {
			return refuse(armor.ErrInvalid, "operator %s: role %s is given twice", o.Name, role)
		}
	}
	return checkOperatorKey(o)
}
