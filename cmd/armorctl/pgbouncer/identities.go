package pgbouncer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// clients are the users that clients connect as, in the order in which they are
// written.
func (t *translation) clients() (names []string) {
	for _, u := range t.listed {
		names = append(names, u.name)
	}
	for _, s := range t.users {
		if !slices.Contains(names, s.key) {
			names = append(names, s.key)
		}
	}
	return names
}

func (t *translation) listedUser(name string) (user, bool) {
	i := slices.IndexFunc(t.listed, func(u user) bool { return u.name == name })
	if i < 0 {
		return user{}, false
	}
	return t.listed[i], true
}

// roles are those as which a database's clients come, with the secrets by which nodes
// log in.
func (t *translation) roles(s *section, d armor.Database) (roles []armor.RoleAuth) {
	names := t.clients()
	if forced := s.values["user"]; forced != "" {
		names = []string{forced}
	}
	for _, name := range names {
		if name == d.Query.Role || s.values["user"] == "" && len(t.accesses(s.key, name)) == 0 {
			continue
		}
		roles = append(roles, armor.RoleAuth{Role: name, Secret: t.secretOf(s, d, name)})
	}
	known := len(roles) > 0
	if d.Query.Role != "" {
		roles = append(roles, armor.RoleAuth{Role: d.Query.Role, Secret: t.secretOf(s, d, d.Query.Role)})
	}
	if !known {
		t.report.note(s.place, "databases."+s.key, "", outcome{why: "its users are not known",
			instead: "name them with --userlist, or write auth.roles of the Database and an Identity for each"})
	}
	slices.SortFunc(roles, func(a, b armor.RoleAuth) int { return strings.Compare(a.Role, b.Role) })
	return roles
}

// secretOf names what nodes log in with. PgBouncer takes the password of the connection
// string, else that of auth_file, else none.
func (t *translation) secretOf(s *section, d armor.Database, role string) armor.SecretName {
	if password := s.values["password"]; password != "" {
		return t.keep(t.secretName(s.key+"."+role), password, d.Hosts)
	}
	u, listed := t.listedUser(role)
	if !listed || u.secret == "" {
		if d.Query.Role == "" || d.Query.Role == role {
			return ""
		}
		if own := t.userSection(role); !listed && own != nil {
			u.place = own.place
		}
		return t.unknownPassword(u.place, role)
	}
	if password := u.password(); password != "" {
		return t.keep(t.secretName(role), password, d.Hosts)
	}
	what := "a SCRAM verifier"
	if u.isMD5() {
		what = "an MD5 hash"
	}
	name := t.secretName(role)
	t.report.note(u.place, "userlist."+role, "", outcome{why: what + " is not a password: nodes cannot log in to PostgreSQL with it",
		instead: fmt.Sprintf("put the role's password into the secret %s on every node", name)})
	return armor.SecretName(name)
}

// secretName has a prefix, so that no secret is overwritten that a node has already.
func (t *translation) secretName(from string) string { return t.name("secret", "pgbouncer-"+from) }

func (t *translation) keep(name, password string, hosts []string) armor.SecretName {
	s := t.secrets[armor.SecretName(name)]
	s.Name, s.Password = armor.SecretName(name), password
	for _, h := range hosts {
		if !slices.Contains(s.Hosts, h) {
			s.Hosts = append(s.Hosts, h)
		}
	}
	t.secrets[s.Name] = s
	return s.Name
}

// access is one way in which a user may come to a database.
type access struct {
	networks []netip.Prefix // empty: from anywhere
	factor   armor.SecondFactor
}

// accesses are those of a user to a database, in the order in which PgBouncer looks for
// one, as a grant's are looked for. They end at the first record for the user that
// cannot be translated: PgBouncer might go no further for a client, and what stands
// behind would let in more than before.
func (t *translation) accesses(database, name string) (found []access) {
	if !t.hasHBA {
		return []access{{factor: factorOf(t.text("auth_type"))}}
	}
	for _, h := range t.records {
		if h.kind == "local" || h.kind == "hostnossl" || !h.mayBeFor(database, name) {
			continue
		}
		if !h.opens() {
			break
		}
		a := access{h.networks, factorOf(h.method)}
		if last := len(found) - 1; last >= 0 && found[last].factor == a.factor && len(found[last].networks) > 0 && len(a.networks) > 0 &&
			len(found[last].networks) < armor.MaxCIDRs {
			found[last].networks = append(slices.Clone(found[last].networks), a.networks...)
			continue
		}
		found = append(found, a)
	}
	return found
}

// factorOf is what is asked for beside the certificate.
func factorOf(method string) armor.SecondFactor {
	switch method {
	case "md5", "scram-sha-256", "plain", "password":
		return armor.SCRAM
	}
	return ""
}

// opens reports whether a record lets anybody in that we can let in.
func (h hbaLine) opens() bool { return h.outcome().why == "" && h.method != "reject" }

// names reports whether a record names files or groups, which may hold anybody.
func (h hbaLine) namesOthers() bool {
	return slices.ContainsFunc(slices.Concat(h.databases, h.users), func(n hbaName) bool {
		return !n.quoted && n.name != "" && (n.name[0] == '@' || n.name[0] == '+' || n.name == "samerole" || n.name == "samegroup")
	})
}

func (h hbaLine) mayBeFor(database, name string) bool {
	return h.namesOthers() || h.isFor(database, name)
}

// outcome is what becomes of a record.
func (h hbaLine) outcome() outcome {
	switch {
	case h.kind == "local":
		return outcome{why: "clients come over TCP only", instead: "have them connect to localhost"}
	case h.kind == "hostnossl":
		return outcome{why: "clients come with TLS only", instead: "have them use TLS, with a certificate"}
	case h.namesOthers():
		return outcome{why: "files and groups are not followed", instead: "write the names out, in the grants of the Identities"}
	case slices.ContainsFunc(h.databases, func(n hbaName) bool { return n.is("replication") }):
		return outcome{why: "PgBouncer serves no replication connections", instead: "take the word replication out of the record"}
	case h.method == "reject":
		return h.rejects()
	case !slices.Contains([]string{"cert", "trust", "md5", "scram-sha-256", "plain", "password"}, h.method):
		return outcome{why: "clients are known by certificates, and by SCRAM beside them: there is no " + clip(h.method),
			instead: "grant the identities what they may reach"}
	case strings.Contains(h.options, "map="):
		return outcome{why: "no maps from certificate names to users", instead: "an Identity's grants say which roles it may have: edit them"}
	}
	return outcome{to: "Identity spec.grants"}
}

// rejects: who is not granted anything is refused, but a grant has no exceptions.
func (h hbaLine) rejects() outcome {
	if all(h.databases) && all(h.users) && len(h.networks) == 0 {
		return outcome{to: nothing, note: "what is not granted is refused"}
	}
	return outcome{why: "a grant has no exceptions",
		instead: "what stands behind this record is not granted to those it is for: write cidrs for them that leave these addresses out"}
}

// isFor reports whether a record is about a user and a database.
func (h hbaLine) isFor(database, name string) bool {
	inDatabases := func(n hbaName) bool {
		if n.is("sameuser") {
			return database == name
		}
		return n.is("all") || n.name == database && !n.is("replication")
	}
	return slices.ContainsFunc(h.databases, inDatabases) &&
		slices.ContainsFunc(h.users, func(n hbaName) bool { return n.is("all") || n.name == name })
}

// proves reports whether clients have to prove the role's password at a database.
func (t *translation) proves(s *section, role string) bool {
	return s.values["user"] == "" && slices.ContainsFunc(t.accesses(s.key, role), func(a access) bool { return a.factor != "" })
}

// makeIdentities makes an Identity of each user: PgBouncer knows no others.
func (t *translation) makeIdentities() {
	for _, h := range t.records {
		o := h.outcome()
		if h.opens() && t.namesUnlisted(h) {
			o = outcome{why: "it names a database that is not listed, and the template's are granted all together or not at all",
				instead: "list the database in [databases], or write the grant by hand"}
		}
		t.report.note(h.place, "hba", strings.TrimSpace(h.kind+" … "+h.method), o)
	}
	admins, watchers := t.consoleUsers("admin_users"), t.consoleUsers("stats_users")
	names := t.clients()
	for _, name := range slices.Concat(admins, watchers) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if t.asker(name) && !slices.Contains(admins, name) && !slices.Contains(watchers, name) {
			t.noteAsker(name)
			continue
		}
		t.identity(name, slices.Contains(admins, name), slices.Contains(watchers, name))
	}
}

// namesUnlisted reports whether a record is for a database that only the template
// serves.
func (t *translation) namesUnlisted(h hbaLine) bool {
	listed := func(name string) bool {
		return armor.IsConsole(name) || slices.ContainsFunc(t.databases, func(s section) bool { return s.key == name })
	}
	return listed(armor.TemplateDatabase) && slices.ContainsFunc(h.databases, func(n hbaName) bool {
		return !n.is("all") && (n.is("sameuser") || !listed(n.name))
	})
}

func (t *translation) consoleUsers(key string) (names []string) {
	for name := range strings.SplitSeq(t.text(key), ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (t *translation) identity(name string, admin, watcher bool) {
	own := t.name("identity", name)
	i := armor.IdentityConfig{
		Name: own, Environment: t.Environment, ID: armor.Pattern("spiffe://" + t.TrustDomain + "/user/" + own), Owner: t.Owner,
		MaxConnections: where{t, t.userSection(name), nil}.count("max_user_client_connections", "max_user_client_connections"),
	}
	if slices.Contains(t.clients(), name) {
		for n := range t.databases {
			i.Grants = append(i.Grants, t.grants(&t.databases[n], name)...)
		}
	}
	switch {
	case admin:
		i.Grants = append(i.Grants, armor.Grant{Database: armor.ConsoleDatabasePgBouncer,
			Roles: []string{armor.ConsoleAdmin, armor.ConsoleStats}})
	case watcher:
		i.Grants = append(i.Grants, armor.Grant{Database: armor.ConsoleDatabasePgBouncer, Roles: []string{armor.ConsoleStats}})
	}
	t.state.Identities = t.state.Identities.With(i)
	if u, listed := t.listedUser(name); listed {
		t.report.note(u.place, "userlist."+name, "", outcome{to: "Identity " + own + ", " + string(i.ID)})
	}
}

func (t *translation) userSection(name string) *section {
	if i := slices.IndexFunc(t.users, func(s section) bool { return s.key == name }); i >= 0 {
		return &t.users[i]
	}
	return nil
}

// grants are what a user has of a database.
func (t *translation) grants(s *section, name string) (grants []armor.Grant) {
	d, made := t.state.Databases.Get(armor.ObjectKey(t.Environment, s.key))
	role := name
	if forced := s.values["user"]; forced != "" {
		role = forced
	}
	if _, known := d.Auth(role); !made || !known || role == d.Query.Role {
		return nil
	}
	for _, a := range t.accesses(s.key, name) {
		g := armor.Grant{Database: d.Name, Roles: []string{role}, Pool: t.poolName(d, role), CIDRs: a.networks, SecondFactor: a.factor}
		if role != name || s.values["user"] != "" {
			g.SecondFactor = "" // it would be the forced user's, whom the client is not
		}
		if g.SecondFactor != "" && d.Query.Role == "" {
			t.verify(name)
		}
		grants = append(grants, g)
	}
	return grants
}
