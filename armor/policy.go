package armor

import (
	"net/netip"
	"slices"
)

// IdentityConfig is an Identity object of the cluster configuration: who answers
// for an identity, and what it may reach. Whatever it does not grant is denied.
type IdentityConfig struct {
	Name        string
	Environment string
	ID          Pattern
	Owner       string
	Contact     string
	Grants      []Grant
	// MaxConnections bounds the sessions that one node serves at once under this object;
	// zero is no bound.
	MaxConnections int
}

// Key is the object's key in State.Identities.
func (i IdentityConfig) Key() string { return ObjectKey(i.Environment, i.Name) }

// Ref names the identity among the objects of the configuration.
func (i IdentityConfig) Ref() ObjectRef { return ObjectRef{KindIdentity, i.Environment, i.Name} }

// indexGrant makes the object the one that speaks for its identities.
func (i IdentityConfig) indexGrant(s *State) {
	s.Grants = s.Grants.With(ObjectKey(i.Environment, string(i.ID)), i.Name)
}

// forgetGrant undoes that, unless another object speaks for them by now.
func (i IdentityConfig) forgetGrant(s *State) {
	pattern := ObjectKey(i.Environment, string(i.ID))
	if name, _ := s.Grants.Get(pattern); name == i.Name {
		s.Grants = s.Grants.Without(pattern)
	}
}

// Grant lets an identity reach one database in some roles through one pool.
type Grant struct {
	Database string   // TemplateDatabase: any that is not listed
	Roles    []string // matched exactly against the startup packet's user
	Pool     string
	CIDRs    []netip.Prefix // empty: from anywhere
	// SecondFactor is asked for beside the certificate; empty: nothing.
	SecondFactor SecondFactor
	// Replication also lets replication connections in, by which the role may read all
	// that its server writes, whatever the database.
	Replication bool
}

// SecondFactor is what a client proves beside its certificate's key.
type SecondFactor string

// SCRAM is the password of the role, by SCRAM-SHA-256 or SCRAM-SHA-256-PLUS.
const SCRAM SecondFactor = "scram"

func (g Grant) hasRole(role string) bool { return slices.Contains(g.Roles, role) }

func (g Grant) hasSource(source netip.Addr) bool {
	if len(g.CIDRs) == 0 {
		return true
	}
	source = source.Unmap()
	return slices.ContainsFunc(g.CIDRs, func(p netip.Prefix) bool { return p.Contains(source) })
}

// IdentityFor returns the Identity object that speaks for id in an environment:
// the one with the most exact pattern, and no other.
func (s *State) IdentityFor(environment string, id Identity) (IdentityConfig, bool) {
	for _, p := range id.Patterns() {
		if name, ok := s.Grants.Get(ObjectKey(environment, string(p))); ok {
			return s.Identities.Get(ObjectKey(environment, name))
		}
	}
	return IdentityConfig{}, false
}
