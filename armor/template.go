package armor

import "fmt"

// TemplateDatabase is the name of the Database object that stands for every database
// which its environment does not list: PgBouncer's autodb. A client that asks for one
// of these, by whatever name, is served by the template's pools, and its server
// connections lead to the database of that name. A grant of the template covers what
// the template stands for, and nothing that is listed.
const TemplateDatabase = "*"

// maxDatabaseName is PostgreSQL's NAMEDATALEN - 1. It cuts longer names short, so that
// two would be one.
const maxDatabaseName = 63

// IsTemplate reports whether a Database of that name is the template.
func IsTemplate(database string) bool { return database == TemplateDatabase }

// CheckDatabaseReference reports whether s can name the database of a pool or a grant.
func CheckDatabaseReference(s string) error {
	if IsTemplate(s) {
		return nil
	}
	return CheckName("database", s)
}

// DatabaseFor returns the name of the Database object that speaks for the database
// which a client asks for: its own, or the template.
func (s *State) DatabaseFor(environment, asked string) string {
	switch {
	case s.Databases.Has(ObjectKey(environment, asked)) || IsConsole(asked) || len(asked) > maxDatabaseName:
		return asked
	case s.Databases.Has(ObjectKey(environment, TemplateDatabase)):
		return TemplateDatabase
	}
	return asked
}

// named returns the template for one database.
func (d Database) named(asked string) Database {
	if IsTemplate(d.Name) {
		d.DBName = asked
	}
	return d
}

// CheckTemplate returns ErrInvalid for a template that names a database on the server:
// it opens the one that the client asks for.
func (d Database) CheckTemplate() error {
	if IsTemplate(d.Name) && d.DBName != "" {
		return fmt.Errorf("%w: dbname %q: the template opens the database that the client asks for, leave it out", ErrInvalid, clip(d.DBName))
	}
	return nil
}
