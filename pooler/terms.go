package pooler

import (
	"maps"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/pgwire"
)

// terms are what a login says to PostgreSQL beside database and role, where that is not
// what every login of the role says. They are immutable, but for nil, which is what
// everybody's are.
type terms struct {
	replication armor.Replication
	parameters  map[string]string // of the startup packet, by name
}

// refused returns PostgreSQL's own words about a login that has failed for what the
// client has asked for; nil if there is no telling.
func (t *terms) refused(err error) *pgwire.Error {
	e := backend.Refusal(err)
	if t == nil || e == nil {
		return nil
	}
	if strings.HasPrefix(e.Code, "22") || slices.Contains([]string{"42501", stateUnknownSetting, "42602", "55P02"}, e.Code) {
		return e
	}
	return nil
}

// kind is what the connection replicates.
func (t *terms) kind() armor.Replication {
	if t == nil {
		return armor.NoReplication
	}
	return t.replication
}

// once reports whether such a connection serves one client and ends with it: what a
// replication connection has behind it, no reset undoes.
func (t *terms) once() bool { return t.kind() != armor.NoReplication }

// mode is that of a session in a pool of the given one.
func (t *terms) mode(pool armor.PoolMode) armor.PoolMode {
	if t.once() {
		return armor.SessionMode
	}
	return pool
}

// startup returns the parameters of the startup packet, for the caller to change.
func (t *terms) startup() map[string]string {
	all := map[string]string{}
	if t == nil {
		return all
	}
	maps.Copy(all, t.parameters)
	switch t.replication {
	case armor.PhysicalReplication:
		all["replication"] = "true"
	case armor.LogicalReplication:
		all["replication"] = "database"
	}
	return all
}

// words tells terms apart. No word of a startup packet has a NUL in it.
func (t *terms) words() string {
	all := t.startup()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(name + "\x00" + all[name] + "\x00")
	}
	return b.String()
}
