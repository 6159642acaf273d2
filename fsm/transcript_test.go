package fsm

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the outcomes in testdata")

// A transcript is a list of lines, each followed by its outcome, indented:
//
//	[+duration] principal: verb arguments… [id=n] [expires=duration] [forged]
//	show table
//
// apply takes several objects, separated by ';'. Blank lines and '#' are kept.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runTranscript(t, file) })
	}
}

func runTranscript(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	var got strings.Builder
	for line := range strings.Lines(string(want)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&got, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		before := l.state()
		for out := range strings.Lines(l.line(line)) {
			fmt.Fprintln(&got, "  "+strings.TrimRight(out, "\n"))
		}
		l.invariants(before)
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got.String() != string(want) {
		t.Errorf("%s: %s", file, firstDifference(got.String(), string(want)))
	}
	replayTwice(t, l)
	snapshotAtEveryPrefix(t, l)
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return "one of them ends early"
}

func replayTwice(t rapid.TB, l *lab) {
	t.Helper()
	sameMachine(t, "replay", l.machine, l.replayed(New(), 0))
}

func snapshotAtEveryPrefix(t *testing.T, l *lab) {
	t.Helper()
	for i := range len(l.entries) + 1 {
		prefix := New()
		for j, entry := range l.entries[:i] {
			if _, err := prefix.Apply(uint64(j+1), l.term, entry); err != nil {
				t.Fatal(err)
			}
		}
		restored := New()
		if err := restored.Restore(bytes.NewReader(snapshotBytes(t, prefix))); err != nil {
			t.Fatalf("after %d entries: %v", i, err)
		}
		sameMachine(t, fmt.Sprintf("restored after %d entries", i), prefix, restored)
		sameMachine(t, fmt.Sprintf("restored after %d entries and continued", i), l.machine, l.replayed(restored, i))
	}
}

func sameMachine(t rapid.TB, what string, a, b *Machine) {
	t.Helper()
	if a, b := a.Mark(), b.Mark(); a != b {
		t.Fatalf("%s: revision %d chain %s state %s\nbut %d %s %s", what, a.Revision,
			a.Chain.Short(), a.State.Short(), b.Revision, b.Chain.Short(), b.State.Short())
	}
	if !bytes.Equal(snapshotBytes(t, a), snapshotBytes(t, b)) {
		t.Fatalf("%s: snapshots differ", what)
	}
	as, bs := a.current.Load().world.state, b.current.Load().world.state
	if !sameIndex(as.KeyEnvironments, bs.KeyEnvironments) || !sameIndex(as.Grants, bs.Grants) {
		t.Fatalf("%s: derived indexes differ", what)
	}
}

func sameIndex(a, b armor.Index) bool {
	return maps.Equal(maps.Collect(a.All()), maps.Collect(b.All()))
}

func snapshotBytes(t rapid.TB, m *Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := m.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatal(n, err)
	}
	return b.Bytes()
}

// line runs one line and returns its outcome.
func (l *lab) line(line string) string {
	if what, ok := strings.CutPrefix(line, "show "); ok {
		return l.show(what)
	}
	fields := strings.Fields(line)
	if d, ok := strings.CutPrefix(fields[0], "+"); ok {
		l.now = l.now.Add(l.duration(d))
		fields = fields[1:]
	}
	principal, ok := strings.CutSuffix(fields[0], ":")
	if !ok {
		l.t.Fatalf("%q: no principal", line)
	}
	a := arguments{l.t, fields[1:]}
	id, expires, forged := a.take("id="), a.take("expires="), a.flag("forged")
	r := l.request(principal, l.command(&a))
	if id != "" {
		n, err := strconv.Atoi(id)
		if err != nil {
			l.t.Fatal(err)
		}
		r.ID = armor.RequestID(fmt.Sprintf("f%031x", n))
	}
	if expires != "" {
		r.Expires = l.now.Add(l.duration(expires))
	}
	r = l.sign(r)
	if forged {
		r.Signature[len(r.Signature)-1] ^= 1
	}
	return l.outcome(l.apply(r))
}

func (l *lab) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

func (l *lab) outcome(r armor.Result) string {
	text := fmt.Sprintf("%d ok", r.Revision)
	if r.Err != nil {
		text = fmt.Sprintf("%d %v", r.Revision, r.Err)
	}
	if r.Repeated {
		text += " (repeated)"
	}
	return text
}

// arguments are words; take removes the one that begins with a prefix.
type arguments struct {
	t     rapid.TB
	words []string
}

func (a *arguments) next() string {
	a.t.Helper()
	if len(a.words) == 0 {
		a.t.Fatal("an argument is missing")
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *arguments) take(prefix string) string {
	i := slices.IndexFunc(a.words, func(w string) bool { return strings.HasPrefix(w, prefix) })
	if i < 0 {
		return ""
	}
	w := a.words[i]
	a.words = slices.Delete(slices.Clone(a.words), i, i+1)
	return strings.TrimPrefix(w, prefix)
}

func (a *arguments) flag(word string) bool {
	n := len(a.words)
	a.take(word)
	return len(a.words) < n
}

func (a *arguments) number(prefix string) int {
	s := a.take(prefix)
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

func (a *arguments) duration(prefix string) time.Duration {
	s := a.take(prefix)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		a.t.Fatal(err)
	}
	return d
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func (l *lab) command(a *arguments) armor.Command {
	switch verb := a.next(); verb {
	case "bootstrap":
		return l.bootstrap(a.next(), a.next())
	case "env":
		return armor.PutEnvironment{Environment: environment(a)}
	case "anchor":
		return l.anchor(a.next(), a.take("env="), a.take("prefix="))
	case "register":
		return l.register(a)
	case "revoke":
		return l.revocation(a)
	case "stage":
		return l.staging(a)
	case "revoke-staged":
		return l.activation(a)
	case "apply":
		return l.applied(a)
	case "operator":
		name := a.next()
		var roles []armor.OperatorRole
		for _, r := range list(a.take("roles=")) {
			roles = append(roles, armor.OperatorRole(r))
		}
		return armor.PutOperator{Operator: l.operator(name, roles...)}
	default:
		return l.memberCommand(verb, a)
	}
}

func (l *lab) memberCommand(verb string, a *arguments) armor.Command {
	switch verb {
	case "token":
		return l.token(a.next(), max(a.duration("life="), time.Minute))
	case "join":
		c := l.join(a.next())
		if with := a.take("with="); with != "" {
			c.Token = tokenHash(with)
		}
		return c
	case "approve":
		c := l.approve(a.next())
		if a.flag("anew") { // with a key of another machine
			c.Certificate.Key, c.Certificate.ID.Serial = digest("key of another machine", string(c.Node)), "beef"
		}
		return c
	case "remove":
		return armor.RemoveMember{Node: armor.NodeID(a.next()), SharesSettled: a.flag("settled")}
	case "replace":
		t := l.token(a.next(), time.Hour)
		return armor.ReplaceMember{Node: t.Token.Node, Token: t.Token, SharesSettled: a.flag("settled")}
	case "addresses":
		return armor.SetMemberAddresses{Node: armor.NodeID(a.next()), PeerAddress: a.next()}
	case "bury":
		return armor.BuryTombstones{Nodes: []armor.NodeID{armor.NodeID(a.next())}}
	case "prune":
		return armor.PruneExpired{At: l.now.Add(a.duration("ahead="))}
	case "shares":
		return l.sharing(a)
	}
	l.t.Fatalf("unknown verb %q", verb)
	return nil
}

func environment(a *arguments) armor.Environment {
	return armor.Environment{
		Name: a.next(), Inventory: armor.InventoryMode(a.take("inventory=")), MaxLeafLifetime: a.duration("max="),
		FreshNew: a.duration("new="), FreshLive: a.duration("live="),
	}
}

func (l *lab) register(a *arguments) armor.Command {
	name := a.next()
	c := l.leaf(name, a.take("by="), armor.Identity(a.take("id=")))
	c.Identity = armor.Identity(a.take("as="))
	if key := a.take("key="); key != "" {
		c.Key = digest("key", key)
	}
	r := armor.RegisterCertificate{Record: armor.CertRecord{Certificate: c, Environment: a.take("env="), Owner: a.take("owner=")}}
	if old := a.take("replaces="); old != "" {
		r.Replaces = digest("der", old)
	}
	return r
}

// revocation reads "kind value" pairs; value is the name of a certificate or a CA.
func (l *lab) revocation(a *arguments) armor.Command {
	c := armor.Revoke{Reason: armor.KeyCompromise, Comment: a.take("comment=")}
	before := a.duration("before=")
	for len(a.words) > 0 {
		s := armor.Selector{Kind: armor.SelectorKind(a.next())}
		value := a.next()
		switch s.Kind {
		case armor.SelectCertificate:
			name, issuer, _ := strings.Cut(value, "@")
			s.Certificate = l.leaf(strings.ReplaceAll(name, "_", " "), issuer, "").ID
		case armor.SelectKey:
			s.Key = digest("key", value)
			if key := l.keys[value]; key != nil {
				s.Key = l.operator(value).Certificate.Key
			}
		case armor.SelectIdentity:
			s.Identity = armor.Pattern(value)
			if before != 0 {
				s.IssuedBefore = epoch.Add(before)
			}
		case armor.SelectIssuer:
			s.Issuer = digest("key", value)
		}
		c.Selectors = append(c.Selectors, s)
	}
	return c
}

func (l *lab) applied(a *arguments) armor.Command {
	c := armor.Apply{IfRevision: uint64(a.number("if="))}
	for part := range strings.SplitSeq(strings.Join(a.words, " "), ";") {
		b := &arguments{a.t, strings.Fields(part)}
		if len(b.words) == 0 {
			continue
		}
		switch kind := b.next(); kind {
		case "env":
			c.Environments = append(c.Environments, environment(b))
		case "database":
			env, name := key(b.next())
			db := database(env, name, list(b.take("roles="))...)
			if armor.IsTemplate(name) {
				db.DBName = ""
			}
			if host := b.take("host="); host != "" {
				db.Hosts = []string{host}
			}
			if secret := b.take("secret="); secret != "" {
				db.Roles[0].Secret = armor.SecretName(secret)
			}
			c.Databases = append(c.Databases, db)
		case "pool":
			env, name := key(b.next())
			c.Pools = append(c.Pools, pool(env, name, b.take("database="), b.number("budget=")))
		case "identity":
			c.Identities = append(c.Identities, identity(b))
		case "delete":
			ref := armor.ObjectRef{Kind: b.next()}
			if ref.Environment, ref.Name = key(b.next()); ref.Kind == "Environment" {
				ref.Environment, ref.Name = "", ref.Environment
			}
			c.Delete = append(c.Delete, ref)
		default:
			l.t.Fatalf("unknown object %q", kind)
		}
	}
	return c
}

func key(s string) (env, name string) {
	env, name, _ = strings.Cut(s, "/")
	return env, name
}

// identity reads grants as database:role+role:pool[:cidr].
func identity(a *arguments) armor.IdentityConfig {
	env, name := key(a.next())
	i := armor.IdentityConfig{Name: name, Environment: env, ID: armor.Pattern(a.take("as=")), Owner: "team"}
	for _, text := range list(a.take("grants=")) {
		parts := strings.Split(text, ":")
		g := armor.Grant{Database: parts[0], Roles: strings.Split(parts[1], "+"), Pool: parts[2]}
		if len(parts) > 3 {
			g.CIDRs = []netip.Prefix{netip.MustParsePrefix(parts[3])}
		}
		i.Grants = append(i.Grants, g)
	}
	return i
}

// sharing reads node=granted/target.
func (l *lab) sharing(a *arguments) armor.Command {
	c := armor.SetShares{Pool: a.next()}
	for _, w := range a.words {
		node, counts, _ := strings.Cut(w, "=")
		s := armor.Share{Pool: c.Pool, Node: armor.NodeID(node)}
		if _, err := fmt.Sscanf(counts, "%d/%d", &s.Granted, &s.Target); err != nil {
			l.t.Fatal(err)
		}
		c.Shares = append(c.Shares, s)
	}
	return c
}

// show prints one table.
func (l *lab) show(what string) string {
	s := l.state()
	var b strings.Builder
	switch what {
	case "shares":
		for share := range s.Shares.Values() {
			fmt.Fprintf(&b, "%s %s granted %d target %d\n", share.Pool, share.Node, share.Granted, share.Target)
		}
	case "members":
		for m := range s.Members.Values() {
			fmt.Fprintf(&b, "%s index %d voter %v peer %s\n", m.ID, m.Index, m.Voter, m.PeerAddress)
		}
		for t := range s.Tombstones.Values() {
			fmt.Fprintf(&b, "%s removed %s%s\n", t.ID, stamp(t.RemovedAt), map[bool]string{true: ", shares settled"}[t.SharesSettled])
		}
	case "joins":
		for t := range s.Tokens.Values() {
			fmt.Fprintf(&b, "token for %s by %s until %s\n", t.Node, t.By, stamp(t.Expires))
		}
		for j := range s.Joins.Values() {
			fmt.Fprintf(&b, "%s voter %v chain %d at %s\n", j.Node, j.Voter, len(j.Chain), stamp(j.At))
		}
	default:
		l.showTrust(&b, s, what)
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}

func (l *lab) showTrust(b *strings.Builder, s *armor.State, what string) {
	switch what {
	case "environments":
		for e := range s.Environments.Values() {
			fmt.Fprintf(b, "%s inventory %s new %s live %s\n", e.Name, e.Inventory, e.FreshNew, e.FreshLive)
		}
	case "inventory":
		for _, r := range sortedByID(s) {
			fmt.Fprintf(b, "%s in %s owner %s by %s replaced %v\n", r.Certificate.Identity,
				r.Environment, r.Owner, r.IssuedBy, !r.ReplacedBy.IsZero())
		}
	case "staged":
		for p := range s.Staged.Values() {
			fmt.Fprintf(b, "batch %.6s part %d of %d by %s at %s\n", p.Batch, p.Part, len(p.Selectors), p.By, stamp(p.At))
		}
	case "revocations":
		for r := range s.Revocations.Values() {
			fmt.Fprintf(b, "%s by %s at revision %d\n", r.Selector, r.By, r.Revision)
		}
	case "identities":
		for key, i := range s.Identities.All() {
			fmt.Fprintf(b, "%s %s grants %d\n", key, i.ID, len(i.Grants))
		}
	case "operators":
		for o := range s.Operators.Values() {
			fmt.Fprintf(b, "%s %v\n", o.Name, o.Roles)
		}
	default:
		l.t.Fatalf("show %q: there is no such table", what)
	}
}

func sortedByID(s *armor.State) []armor.CertRecord {
	return slices.SortedFunc(s.Inventory.Values(), func(a, b armor.CertRecord) int {
		return strings.Compare(a.Certificate.Identity.Path()+a.Certificate.ID.Serial, b.Certificate.Identity.Path()+b.Certificate.ID.Serial)
	})
}
