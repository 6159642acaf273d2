package armor

import (
	"fmt"
	"slices"
)

// The admin console is reached as a database that no PostgreSQL has. Its names are
// reserved: no Database object may have them, and an identity enters only by a grant
// that names one of them.
const (
	ConsoleDatabase          = "armor"
	ConsoleDatabasePgBouncer = "pgbouncer" // what PgBouncer's tools ask for
)

// The roles that a grant of the console may give. Roles do not include one another.
const (
	ConsoleStats = "stats" // look
	ConsoleAdmin = "admin" // look and act
)

// IsConsole reports whether a database name means the admin console.
func IsConsole(database string) bool {
	return database == ConsoleDatabase || database == ConsoleDatabasePgBouncer
}

// IsConsoleRole reports whether a grant of the console may give the role.
func IsConsoleRole(role string) bool {
	return slices.Contains([]string{ConsoleStats, ConsoleAdmin}, role)
}

// CheckDatabaseName reports whether a Database object may have the name: not that of
// the admin console.
func CheckDatabaseName(name string) error {
	if IsConsole(name) {
		return fmt.Errorf("%w: name %q is the admin console's: call the Database otherwise", ErrInvalid, name)
	}
	if IsTemplate(name) {
		return nil
	}
	return CheckName("name", name)
}

// CheckConsole returns ErrInvalid for a grant of the admin console that means nothing;
// other grants it takes as they are.
func (g Grant) CheckConsole() error {
	if !IsConsole(g.Database) {
		return nil
	}
	if g.Pool != "" {
		return fmt.Errorf("%w: the admin console has no pool: leave it out", ErrInvalid)
	}
	if g.Replication {
		return fmt.Errorf("%w: the admin console has nothing to replicate: leave replication out", ErrInvalid)
	}
	for _, role := range g.Roles {
		if !IsConsoleRole(role) {
			return fmt.Errorf("%w: role %q of the admin console is not %s or %s", ErrInvalid, clip(role), ConsoleStats, ConsoleAdmin)
		}
	}
	return nil
}

// reachConsole gives what a grant of the admin console gives: a database in name only,
// and no pool.
func (s *State) reachConsole(access Access, g Grant, f Facts) (Access, *Denial) {
	if !IsConsoleRole(f.Role) {
		return access, deny(ReasonRole, fmt.Sprintf("the admin console has no role %q", f.Role), f.Peer.Leaf)
	}
	access.Database = Database{Name: g.Database, Environment: access.Environment}
	access.SecondFactor = g.SecondFactor // the machine refuses one; it would never be proved
	return access, nil
}
