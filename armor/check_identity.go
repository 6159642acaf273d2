package armor

// The bounds of an identity.
const (
	maxGrants = 256
	// MaxCIDRs bounds the networks of a grant.
	MaxCIDRs = 256
)

// Check returns the FieldErrors of an identity and its grants.
func (i IdentityConfig) Check() error {
	var f faults
	f.name(i.Name)
	_, err := ParsePattern(string(i.ID))
	f.note(Field{"spec", "id"}, err)
	f.note(Field{"spec", "owner"}, CheckText("owner", i.Owner, MaxText, false))
	f.note(Field{"spec", "contact"}, CheckText("contact", i.Contact, MaxText, false))
	f.count(Field{"spec", "maxConnections"}, i.MaxConnections, MaxClients)
	if len(i.Grants) > maxGrants {
		f.wrong(Field{"spec", "grants"}, "%d grants, more than %d", len(i.Grants), maxGrants)
	}
	for n, g := range i.Grants {
		f.below(Field{"spec", "grants", n}, g.Check())
	}
	return f.err()
}

// Check returns the FieldErrors of a grant; their fields are those of the grant alone.
func (g Grant) Check() error {
	var f faults
	switch {
	case len(g.Roles) == 0:
		f.wrong(Field{"roles"}, "a grant names the roles that it gives")
	case len(g.Roles) > MaxRoles:
		f.wrong(Field{"roles"}, "%d roles, more than %d", len(g.Roles), MaxRoles)
	}
	for n, role := range g.Roles {
		f.note(Field{"roles", n}, CheckText("role", role, maxPGName, true))
	}
	if len(g.CIDRs) > MaxCIDRs {
		f.wrong(Field{"cidrs"}, "%d networks, more than %d", len(g.CIDRs), MaxCIDRs)
	}
	for n, p := range g.CIDRs {
		if p != p.Masked() {
			f.wrong(Field{"cidrs", n}, "network %s has bits set beyond its length: write %s", p, p.Masked())
		}
	}
	if IsConsole(g.Database) {
		g.checkConsole(&f)
	} else if g.SecondFactor != "" {
		oneOf(&f, Field{"secondFactor"}, g.SecondFactor, "", SCRAM)
	}
	return f.err()
}

// checkConsole refuses what means nothing in a grant of the admin console.
func (g Grant) checkConsole(f *faults) {
	if g.Pool != "" {
		f.wrong(Field{"pool"}, "the admin console has no pool: leave it out")
	}
	if g.Replication {
		f.wrong(Field{"replication"}, "the admin console has nothing to replicate: leave it out")
	}
	if g.SecondFactor != "" {
		f.wrong(Field{"secondFactor"}, "the admin console asks for no second factor: whoever enters it has a certificate that may")
	}
	for n, role := range g.Roles {
		if !IsConsoleRole(role) {
			f.wrong(Field{"roles", n}, "role %q of the admin console is not %s or %s", clip(role), ConsoleStats, ConsoleAdmin)
		}
	}
}
