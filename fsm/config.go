package fsm

import (
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

const (
	maxHosts     = 16
	maxRoles     = 256
	maxGrants    = 256
	maxCIDRs     = 256
	maxBudget    = 100_000
	maxQueryWait = 24 * 60 * 60 * 1_000_000_000 // a day
	maxTimeOut   = 365 * maxQueryWait           // of all others
	maxClients   = 1_000_000
)

// apply changes the configuration: all of it or nothing. Objects are judged by
// themselves as they are put, and by what they refer to once all are in place.
func (d *draft) apply(c armor.Apply) error {
	if err := d.checkRevision(c.IfRevision); err != nil {
		return err
	}
	if err := checkNamedOnce(c); err != nil {
		return err
	}
	for _, e := range c.Environments {
		if err := d.putEnvironment(e); err != nil {
			return err
		}
	}
	if err := d.putObjects(c); err != nil {
		return err
	}
	for _, ref := range c.Delete {
		if err := d.delete(ref); err != nil {
			return err
		}
	}
	if err := d.checkReferences(c.Delete); err != nil {
		return err
	}
	return d.cutShares(c)
}

// checkRevision is the compare of compare-and-swap. Only what Apply itself can change
// counts: shares that move and nodes that join meanwhile invalidate no plan.
func (d *draft) checkRevision(planned uint64) error {
	switch {
	case planned == 0:
		return nil
	case planned >= d.Revision:
		return refuse(armor.ErrInvalid, "revision %d has not come yet: this is %d", planned, d.Revision)
	case d.configured > planned:
		return refuse(armor.ErrConflict, "the configuration was changed by revision %d, and the plan was made at %d: plan again", d.configured, planned)
	}
	return nil
}

func objectName(kind, environment, name string) string {
	if kind == "Environment" {
		return "environment " + name
	}
	return strings.ToLower(kind) + " " + armor.ObjectKey(environment, name)
}

func checkNamedOnce(c armor.Apply) error {
	seen := map[string]bool{}
	once := func(kind, environment, name string) error {
		object := objectName(kind, environment, name)
		if seen[object] {
			return refuse(armor.ErrInvalid, "%s is named twice", object)
		}
		seen[object] = true
		return nil
	}
	var errs []error
	for _, e := range c.Environments {
		errs = append(errs, once("Environment", "", e.Name))
	}
	for _, o := range c.Databases {
		errs = append(errs, once("Database", o.Environment, o.Name))
	}
	for _, p := range c.Pools {
		errs = append(errs, once("Pool", p.Environment, p.Name))
	}
	for _, i := range c.Identities {
		errs = append(errs, once("Identity", i.Environment, i.Name))
	}
	for _, r := range c.Delete {
		errs = append(errs, once(r.Kind, r.Environment, r.Name))
	}
	return firstError(errs...)
}

// putObjects first takes the patterns of the identities that change out of the index,
// so that two may swap theirs.
func (d *draft) putObjects(c armor.Apply) error {
	for _, o := range c.Databases {
		if err := d.putDatabase(o); err != nil {
			return describe(err, "database %s", armor.ObjectKey(o.Environment, o.Name))
		}
	}
	for _, p := range c.Pools {
		if err := d.putPool(p); err != nil {
			return describe(err, "pool %s", p.Key())
		}
	}
	for _, i := range c.Identities {
		d.forgetGrant(i.Environment, i.Name)
	}
	for _, ref := range c.Delete {
		if ref.Kind == "Identity" {
			d.forgetGrant(ref.Environment, ref.Name)
		}
	}
	for _, i := range c.Identities {
		if err := d.putIdentity(i); err != nil {
			return describe(err, "identity %s", armor.ObjectKey(i.Environment, i.Name))
		}
	}
	return nil
}

func (d *draft) forgetGrant(environment, name string) {
	if old, had := d.Identities.Get(armor.ObjectKey(environment, name)); had {
		d.Grants = d.Grants.Without(armor.ObjectKey(environment, string(old.ID)))
	}
}

func (d *draft) putDatabase(o armor.Database) error {
	if err := checkDatabase(o); err != nil {
		return err
	}
	slices.SortFunc(o.Roles, func(a, b armor.RoleAuth) int { return strings.Compare(a.Role, b.Role) })
	for i := 1; i < len(o.Roles); i++ {
		if o.Roles[i].Role == o.Roles[i-1].Role {
			return refuse(armor.ErrInvalid, "role %q has two credentials", o.Roles[i].Role)
		}
	}
	d.configure(change(d, armor.Databases, o))
	return nil
}

func checkDatabase(o armor.Database) error {
	if err := firstError(armor.CheckDatabaseName(o.Name), o.CheckTemplate(), checkText("dbname", o.DBName, maxPGName, !armor.IsTemplate(o.Name))); err != nil {
		return err
	}
	if err := firstError(armor.CheckTLSMode(o.TLSMode), checkHostChoice(o)); err != nil {
		return err
	}
	if len(o.Hosts) == 0 || len(o.Hosts) > maxHosts || len(o.Roles) > maxRoles {
		return refuse(armor.ErrInvalid, "%d hosts and %d roles; 1 to %d hosts and up to %d roles are taken", len(o.Hosts), len(o.Roles), maxHosts, maxRoles)
	}
	for _, h := range o.Hosts {
		if err := checkAddress("host", h, true); err != nil {
			return err
		}
	}
	// Names of secrets are file names in a node's secrets directory: a path in one
	// would be a way to read any file of the node. None means: no CA, no password.
	if err := firstError(checkSecret("ca", o.CA), checkSecret("verifiers", o.Verifiers)); err != nil {
		return err
	}
	for _, r := range o.Roles {
		if err := firstError(checkText("role", r.Role, maxPGName, true), checkSecret("secret", r.Secret), checkSecret("certificate", r.Certificate), o.CheckAuth(r)); err != nil {
			return err
		}
	}
	return o.CheckQuery()
}

func checkHostChoice(o armor.Database) error {
	if !slices.Contains([]armor.SessionAttrs{armor.AnySession, armor.ReadWrite, armor.ReadOnly, armor.Primary, armor.Standby, armor.PreferStandby}, o.TargetSessionAttrs) {
		return refuse(armor.ErrInvalid, "target session attrs %.40q is not one of read-write, read-only, primary, standby, prefer-standby", o.TargetSessionAttrs)
	}
	if !slices.Contains([]armor.LoadBalance{armor.InOrder, armor.RandomHost}, o.LoadBalanceHosts) {
		return refuse(armor.ErrInvalid, "load balance hosts %.40q is not random", o.LoadBalanceHosts)
	}
	return nil
}

func checkSecret(what string, name armor.SecretName) error {
	if name == "" {
		return nil
	}
	return armor.CheckName(what, string(name))
}

func (d *draft) putPool(p armor.Pool) error {
	if p.QueryWait == 0 {
		p.QueryWait = armor.DefaultQueryWait
	}
	if err := armor.CheckName("name", p.Name); err != nil {
		return err
	}
	switch {
	case !slices.Contains([]armor.PoolMode{armor.SessionMode, armor.TransactionMode, armor.StatementMode}, p.Mode):
		return refuse(armor.ErrInvalid, "mode %.40q is not session, transaction or statement", p.Mode)
	case p.Budget < 1 || p.Budget > maxBudget:
		return refuse(armor.ErrInvalid, "budget %d is not between 1 and %d", p.Budget, maxBudget)
	case p.QueryWait < 0 || p.QueryWait > maxQueryWait:
		return refuse(armor.ErrInvalid, "query wait %s is negative or more than a day", p.QueryWait)
	case p.MinSize < 0 || p.MinSize > p.Budget:
		return refuse(armor.ErrInvalid, "min size %d is not between 0 and the budget, %d", p.MinSize, p.Budget)
	case !slices.Contains([]armor.OnState{armor.ResetState, armor.PinState, armor.RefuseState}, p.OnState):
		return refuse(armor.ErrInvalid, "on state %.40q is not pin or refuse", p.OnState)
	case p.Reserve < 0 || p.Reserve >= p.Budget:
		return refuse(armor.ErrInvalid, "reserve %d is not between 0 and %d, one less than the budget", p.Reserve, p.Budget-1)
	case (p.Reserve > 0) != (p.ReserveAfter > 0):
		return refuse(armor.ErrInvalid, "reserve %d and reserve after %s: a reserve is opened after some time, and without one there is nothing to open", p.Reserve, p.ReserveAfter)
	case p.WarmUp && p.MinSize == 0:
		return refuse(armor.ErrInvalid, "warm up without a min size opens nothing")
	case p.WarmUp && armor.IsTemplate(p.Database):
		return refuse(armor.ErrInvalid, "warm up: the template's databases are not known before a client asks for one")
	case p.MaxClients < 0 || p.MaxClients > maxClients:
		return refuse(armor.ErrInvalid, "max clients %d is not between 0 and %d", p.MaxClients, maxClients)
	}
	if err := checkTimeOuts(p); err != nil {
		return err
	}
	// A pool that was deleted and comes back must not open a second budget beside
	// the server connections of the first.
	if !d.Pools.Has(p.Key()) && len(d.SharesOf(p.Key())) > 0 {
		return refuse(armor.ErrConflict, "a deleted pool of that name still has %d server connections granted: try again once they are closed", granted(d.SharesOf(p.Key())))
	}
	d.configure(change(d, armor.Pools, p))
	return nil
}

func checkTimeOuts(p armor.Pool) error {
	for _, t := range []struct {
		what string
		time.Duration
	}{
		{"query wait notify", p.QueryWaitNotify}, {"server lifetime", p.ServerLifetime}, {"server idle", p.ServerIdle}, {"client idle", p.ClientIdle},
		{"idle in transaction", p.IdleInTransaction}, {"query timeout", p.QueryTimeout}, {"transaction timeout", p.TransactionTimeout},
		{"reserve after", p.ReserveAfter},
	} {
		if t.Duration < 0 || t.Duration > maxTimeOut || t.Duration > 0 && t.Duration < armor.ShortestTimeOut {
			return refuse(armor.ErrInvalid, "%s %s is not 0 or between %s and a year", t.what, t.Duration, armor.ShortestTimeOut)
		}
	}
	return nil
}

func (d *draft) putIdentity(i armor.IdentityConfig) error {
	if err := checkIdentity(i); err != nil {
		return err
	}
	index := armor.ObjectKey(i.Environment, string(i.ID))
	if other, taken := d.Grants.Get(index); taken {
		return refuse(armor.ErrConflict, "identity %s of the same environment has the same id %s: put all grants into one", other, i.ID)
	}
	if err := d.reachable(i); err != nil {
		return err
	}
	d.configure(change(d, armor.Identities, i))
	return nil
}

func checkIdentity(i armor.IdentityConfig) error {
	_, badPattern := armor.ParsePattern(string(i.ID))
	if err := firstError(
		armor.CheckName("name", i.Name),
		badPattern,
		checkText("owner", i.Owner, maxText255, false),
		checkText("contact", i.Contact, maxText255, false),
	); err != nil {
		return err
	}
	if i.MaxConnections < 0 || i.MaxConnections > maxClients {
		return refuse(armor.ErrInvalid, "max connections %d is not between 0 and %d", i.MaxConnections, maxClients)
	}
	if len(i.Grants) > maxGrants {
		return refuse(armor.ErrInvalid, "%d grants, more than %d", len(i.Grants), maxGrants)
	}
	for _, g := range i.Grants {
		if err := checkGrant(g); err != nil {
			return describe(err, "grant of database %q", g.Database)
		}
	}
	return nil
}

func checkGrant(g armor.Grant) error {
	if len(g.Roles) == 0 || len(g.Roles) > maxRoles || len(g.CIDRs) > maxCIDRs {
		return refuse(armor.ErrInvalid, "%d roles and %d networks; 1 to %d roles and up to %d networks are taken", len(g.Roles), len(g.CIDRs), maxRoles, maxCIDRs)
	}
	for _, role := range g.Roles {
		if err := checkText("role", role, maxPGName, true); err != nil {
			return err
		}
	}
	for _, p := range g.CIDRs {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	if err := g.CheckConsole(); err != nil {
		return err
	}
	if g.SecondFactor != "" && armor.IsConsole(g.Database) {
		return refuse(armor.ErrInvalid, "the admin console asks for no second factor: whoever enters it has a certificate that may")
	}
	if g.SecondFactor != "" && g.SecondFactor != armor.SCRAM {
		return refuse(armor.ErrInvalid, "second factor %.40q is not %s", g.SecondFactor, armor.SCRAM)
	}
	return nil
}

// reachable refuses an identity that no trust anchor of its environment could vouch
// for. While there is no anchor yet, configuration may come first.
func (d *draft) reachable(i armor.IdentityConfig) error {
	anchors := 0
	for _, a := range d.Anchors.All() {
		if a.Environment != i.Environment {
			continue
		}
		anchors++
		if a.Prefix.Covers(i.ID) || i.ID.Covers(a.Prefix) {
			return nil
		}
	}
	if anchors == 0 {
		return nil
	}
	return refuse(armor.ErrInvalid, "no trust anchor of environment %s may vouch for %s", i.Environment, i.ID)
}

func (d *draft) delete(ref armor.ObjectRef) error {
	found := false
	switch ref.Kind {
	case "Environment":
		found = remove(d, armor.Environments, armor.Environment{Name: ref.Name})
	case "Database":
		found = remove(d, armor.Databases, armor.Database{Environment: ref.Environment, Name: ref.Name})
	case "Pool":
		p := armor.Pool{Environment: ref.Environment, Name: ref.Name}
		if found = remove(d, armor.Pools, p); found {
			d.retire(p.Key())
		}
	case "Identity":
		found = remove(d, armor.Identities, armor.IdentityConfig{Environment: ref.Environment, Name: ref.Name})
	default:
		return refuse(armor.ErrInvalid, "kind %.40q is not one of Environment, Database, Pool, Identity", ref.Kind)
	}
	if !found {
		return refuse(armor.ErrNotFound, "there is no %s", objectName(ref.Kind, ref.Environment, ref.Name))
	}
	d.configure(true)
	return nil
}

// cutShares levels the pools whose budget is new.
func (d *draft) cutShares(c armor.Apply) error {
	for _, changed := range c.Pools {
		p, _ := d.Pools.Get(changed.Key())
		if targeted(d.SharesOf(p.Key())) == p.Budget {
			continue
		}
		if err := d.levelPool(p); err != nil {
			return err
		}
	}
	return nil
}
