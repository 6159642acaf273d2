package armor

// TemplateDatabase is the name of the Database object that stands for every database
// which its environment does not list: PgBouncer's autodb. A client that asks for one
// of these, by whatever name, is served by the template's pools, and its server
// connections lead to the database of that name. A grant of the template covers what
// the template stands for, and nothing that is listed.
const TemplateDatabase = "*"

// IsTemplate reports whether a Database of that name is the template.
func IsTemplate(database string) bool { return database == TemplateDatabase }

// DatabaseFor returns the name of the Database object that speaks for the database
// which a client asks for: its own, or the template.
func (s *State) DatabaseFor(environment, asked string) string {
	switch {
	case s.Databases.Has(ObjectKey(environment, asked)) || IsConsole(asked) || len(asked) > maxPGName:
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
