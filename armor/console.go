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
