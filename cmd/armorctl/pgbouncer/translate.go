package pgbouncer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// File is a text and the name that errors and the report call it by.
type File struct {
	Name string
	Text []byte
}

// Source is what a PgBouncer is configured by. Userlist and HBA are nil where they were
// not given.
type Source struct {
	Config        File
	Userlist, HBA *File
	// Include reads the files that Config includes.
	Include Reader
}

// Options are what a PgBouncer's configuration cannot say.
type Options struct {
	Environment string
	TrustDomain string // of the environment's identities
	Owner       string // of the Identities, may be empty
	// Processes is how many PgBouncers have this configuration: all of them together
	// become one pool. At least 1.
	Processes int
}

// Result is a configuration in our words.
type Result struct {
	State     *armor.State // environments, databases, pools and identities; for manifest.Marshal
	Secrets   []Secret     // in the order of their names
	Verifiers []Verifier   // in the order of their roles; Verifiers' name is VerifiersName
	ServerCA  string       // file that the databases' CA has to be copied from; empty: none
	Report    Report
}

// Secret is the password of a role and where it may be sent.
type Secret struct {
	Name     armor.SecretName
	Password string
	Hosts    []string
}

// String keeps the password out of texts.
func (s Secret) String() string { return "secret " + string(s.Name) }

// Names of the secrets that all databases share.
const (
	VerifiersName = armor.SecretName("pgbouncer-users")
	ServerCAName  = armor.SecretName("pgbouncer-server-ca")
)

// section is one line of [databases] or [users].
type section struct {
	entry
	values map[string]string
}

// translation is one Translate in progress.
type translation struct {
	*faults
	Options
	report    Report
	settings  map[string]entry // of [pgbouncer], the last of each key
	databases []section
	users     []section
	listed    []user
	records   []hbaLine
	hasHBA    bool

	state     armor.State
	secrets   map[armor.SecretName]Secret
	verifiers map[string]Verifier
	names     map[string]string // of objects: by what they are taken from
	taken     map[string]bool
}

// Translate reads a configuration. The error, ErrInvalid, joins all that is wrong with
// the files; what is right and cannot be translated is in the report.
func Translate(s Source, o Options) (*Result, error) {
	t := &translation{
		faults: &faults{}, Options: o, report: Report{[]Mapped{}, []Defaulted{}, []Lost{},
			[]Budget{}}, settings: map[string]entry{}, hasHBA: s.HBA != nil,
		secrets: map[armor.SecretName]Secret{}, verifiers: map[string]Verifier{}, names: map[string]string{}, taken: map[string]bool{},
	}
	if err := t.readAll(s); err != nil {
		return nil, err
	}
	t.makeDatabases()
	t.makeIdentities()
	t.tellDefaults()
	if err := t.err(); err != nil {
		return nil, err
	}
	if err := t.checkObjects(); err != nil {
		return nil, err
	}
	r := &Result{State: &t.state, Report: t.report}
	for _, name := range slices.Sorted(maps.Keys(t.secrets)) {
		r.Secrets = append(r.Secrets, t.secrets[name])
	}
	for _, role := range slices.Sorted(maps.Keys(t.verifiers)) {
		r.Verifiers = append(r.Verifiers, t.verifiers[role])
	}
	if slices.ContainsFunc(slices.Collect(t.state.Databases.Values()), func(d armor.Database) bool { return d.CA != "" }) {
		r.ServerCA = t.text("server_tls_ca_file")
	}
	return r, nil
}

// checkObjects holds what was made against the cluster's own rules.
func (t *translation) checkObjects() error {
	for d := range t.state.Databases.Values() {
		t.checkObject(d.Ref(), d.Check())
	}
	for p := range t.state.Pools.Values() {
		t.checkObject(p.Ref(), p.Check())
	}
	for i := range t.state.Identities.Values() {
		t.checkObject(i.Ref(), i.Check())
	}
	return t.err()
}

func (t *translation) checkObject(object armor.ObjectRef, err error) {
	found, _ := errors.AsType[armor.FieldErrors](err)
	for _, e := range found {
		t.at(place{file: object.String()}, "%s: %s", e.Field, e.Text)
	}
}

// readAll reads the files and puts what is written into the report.
func (t *translation) readAll(s Source) error {
	entries, err := readINI(s.Config.Name, s.Config.Text, s.Include)
	if err != nil {
		return err
	}
	for _, e := range entries {
		t.take(e)
	}
	if s.Userlist != nil {
		if t.listed, err = readUserlist(s.Userlist.Name, s.Userlist.Text); err != nil {
			return err
		}
	}
	if s.HBA != nil {
		if t.records, err = readHBA(s.HBA.Name, s.HBA.Text); err != nil {
			return err
		}
	}
	t.noteFiles(s)
	return t.err()
}

// noteFiles reports files that are named and were not given, and the other way round.
// Without its HBA file nobody would know what it refuses.
func (t *translation) noteFiles(s Source) {
	if e := t.settings["auth_file"]; e.value != "" && s.Userlist == nil {
		t.report.note(e.place, e.key, "", outcome{why: "the file was not given", instead: "--userlist " + e.value})
	}
	switch hba := t.text("auth_type") == "hba"; {
	case hba && s.HBA == nil:
		t.at(t.settings["auth_type"].place, "auth_type is hba: give the auth_hba_file with --hba")
	case !hba && s.HBA != nil:
		t.at(place{file: s.HBA.Name}, "auth_type is not hba: PgBouncer does not read this file, leave it out")
	}
}

// take puts one entry where it belongs and into the report.
func (t *translation) take(e entry) {
	switch e.section {
	case mainSection:
		translate, known := mainRules[e.key]
		if !known {
			t.at(e.place, "PgBouncer 1.25 has no key %s", clip(e.key))
			return
		}
		if old, twice := t.settings[e.key]; twice {
			t.dropMapped(old)
		}
		t.settings[e.key] = e
		t.report.note(e.place, e.key, e.value, translate(e.value))
	case databasesSection:
		t.takeSection(&t.databases, e, databaseRules)
	case usersSection:
		t.takeSection(&t.users, e, userRules)
	case peersSection:
		t.report.note(e.place, "peers."+e.key, e.value,
			outcome{why: "nodes find one another: they are not listed", instead: "leave it out: a cancel request works through every node"})
	}
}

// dropMapped takes an entry out of the report that a later one replaces.
func (t *translation) dropMapped(e entry) {
	at := e.place.String()
	t.report.Mapped = slices.DeleteFunc(t.report.Mapped, func(m Mapped) bool { return m.Place == at && m.Key == e.key })
	t.report.NotTranslatable = slices.DeleteFunc(t.report.NotTranslatable, func(l Lost) bool { return l.Place == at && l.Key == e.key })
	t.report.note(e.place, e.key, e.value, outcome{to: nothing, note: "a later line replaces it"})
}

// takeSection reads a line of [databases] or [users].
func (t *translation) takeSection(into *[]section, e entry, rules map[string]rule) {
	pairs, err := parsePairs(e.value)
	if err != nil {
		t.at(e.place, "%s: %v", clip(e.key), err)
		return
	}
	if i := slices.IndexFunc(*into, func(s section) bool { return s.key == e.key }); i >= 0 {
		t.at(e.place, "%s is there already, at %s", clip(e.key), (*into)[i].place)
		return
	}
	if len(e.key) > maxName {
		t.at(e.place, "%s has more than %d bytes", clip(e.key), maxName)
	}
	s := section{e, map[string]string{}}
	for _, p := range pairs {
		translate, known := rules[p.key]
		if !known {
			t.at(e.place, "%s: PgBouncer 1.25 has no key %s in [%s]", clip(e.key), clip(p.key), e.section)
			continue
		}
		if (p.key == "user" || p.key == "dbname") && len(p.value) > maxName {
			t.at(e.place, "%s: %s has more than %d bytes", clip(e.key), p.key, maxName)
		}
		s.values[p.key] = p.value
		t.report.note(e.place, e.section+"."+e.key+"."+p.key, p.value, translate(p.value))
	}
	if alias, ok := s.values["reserve_pool"]; ok {
		s.values["reserve_pool_size"] = cmp.Or(s.values["reserve_pool_size"], alias)
	}
	*into = append(*into, s)
}

// text is a setting of [pgbouncer], or PgBouncer's default.
func (t *translation) text(key string) string {
	if e, written := t.settings[key]; written {
		return e.value
	}
	return defaults[key]
}

// defaults are PgBouncer's, as far as they matter.
var defaults = map[string]string{
	"pool_mode": "session", "default_pool_size": "20", "reserve_pool_timeout": "5", "query_wait_timeout": "120", "query_wait_notify": "5",
	"server_lifetime": "3600", "server_idle_timeout": "600", "unix_socket_dir": "/tmp", "auth_type": "md5",
	"auth_query": "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END " +
		"FROM pg_authid WHERE rolname=$1 AND rolcanlogin",
}

// name makes an object's name of what PgBouncer takes any text for. Two texts never get
// the same one.
func (t *translation) name(kind, from string) string {
	key := kind + " " + from
	if name, made := t.names[key]; made {
		return name
	}
	stem := strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && isKey(byte(r)) && r != '*' {
			return r
		}
		return '-'
	}, from), "-_.")
	if len(stem) > maxStem {
		stem = stem[:maxStem]
	}
	stem = cmp.Or(stem, "x")
	name := stem
	for n := 2; t.taken[kind+" "+name]; n++ {
		name = fmt.Sprintf("%s-%d", stem, n)
	}
	t.names[key], t.taken[kind+" "+name] = name, true
	return name
}

// maxStem leaves room for a number within the 63 characters of a name.
const maxStem = 56
