package armor

import (
	"slices"
)

// Replication is a kind of replication connection, as the startup parameter of that name
// asks for it (PostgreSQL, "Streaming Replication Protocol").
type Replication string

const (
	NoReplication       Replication = ""         // an ordinary session
	PhysicalReplication Replication = "physical" // replication=true: the server's whole log, and its files
	LogicalReplication  Replication = "logical"  // replication=database: decoded changes of one database, and SQL
)

// UnnamedDatabase is what PostgreSQL's tools ask for when they replicate physically: the
// server, which does not look, has the log of all its databases.
const UnnamedDatabase = "replication"

// asked returns the database that the facts ask for. For physical replication that names
// none it is the one whose grants let the role replicate; several means that there is
// more than one.
func (i IdentityConfig) asked(f Facts) (database string, several bool) {
	if f.Replication != PhysicalReplication || f.Database != UnnamedDatabase || i.grantsDatabase(f.Database) {
		return f.Database, false
	}
	database = f.Database
	for _, g := range i.Grants {
		if !g.Replication || !g.hasRole(f.Role) {
			continue
		}
		several = several || database != f.Database && database != g.Database
		database = g.Database
	}
	return database, several
}

func (i IdentityConfig) grantsDatabase(name string) bool {
	return slices.ContainsFunc(i.Grants, func(g Grant) bool { return g.Database == name })
}

// noReplication is the denial of a replication connection that no grant allows.
func noReplication(f Facts) *Denial {
	return f.deny(ReasonReplication, "identity %q may not open replication connections with role %q", f.Peer.Leaf.Identity, f.Role)
}

// severalDatabases is the denial of physical replication that could mean any of them.
func severalDatabases(f Facts) *Denial {
	return f.deny(ReasonReplication,
		"identity %q may replicate several databases with role %q: name one, or use a role that may replicate but one",
		f.Peer.Leaf.Identity, f.Role)
}
