package armor

import (
	"slices"
	"strings"
	"time"
)

// Excerpt returns a state that answers a question as s does, and where a page that was
// asked for ends: empty at the end of the list. It is ErrInvalid for a question that fails
// its Check.
func (s *State) Excerpt(q Question) (*State, string, error) { return s.excerpt(q, mistakes{}) }

// mistakes are what the mutants of our tests do wrong. Nothing else sets one.
type mistakes struct {
	forgetAbove bool // an identity is judged without the patterns above it
	forgetKeys  bool // a certificate that is not registered, without the environment of its key
	repeatEnd   bool // a page begins with the row that the one before ended with
}

func (s *State) excerpt(q Question, wrong mistakes) (*State, string, error) {
	if err := q.Check(); err != nil {
		return nil, "", err
	}
	x := excerpt{of: s, q: q, mistakes: wrong,
		certs: map[Digest]*CertRecord{}, acts: map[SelectorKey]Revocation{}, identities: map[string]IdentityConfig{}}
	next, err := x.page()
	if err != nil {
		return nil, "", err
	}
	if q.RevocationPage.Limit > 0 {
		return x.state(), next, nil // these revocations, and no others
	}
	x.certificates()
	x.selected()
	x.identitiesNamed()
	x.namesBegun()
	x.leaves()
	x.authorities()
	x.dependents()
	return x.state(), next, nil
}

// excerpt is one that is being made.
type excerpt struct {
	of         *State
	q          Question
	mistakes   mistakes
	certs      map[Digest]*CertRecord
	acts       map[SelectorKey]Revocation
	identities map[string]IdentityConfig
}

// state puts what was found together.
func (x *excerpt) state() *State {
	s := *x.of
	s.Inventory, s.Revocations, s.Identities = Table[CertRecord]{}, Revocations{}, Table[IdentityConfig]{}
	s.KeyEnvironments, s.Orders, s.Grants = Index{}, CertOrders{}, Index{}
	add, done := Inventory.Fill(&s)
	for _, row := range x.certs {
		add(row)
	}
	done()
	for _, row := range x.identities {
		Identities.Put(&s, row)
	}
	rows := make([]Revocation, 0, len(x.acts))
	for _, row := range x.acts {
		rows = append(rows, row)
	}
	s.Revocations = s.Revocations.With(rows...)
	return &s
}

// act takes the revocation under key, if there is one.
func (x *excerpt) act(key SelectorKey) {
	if r, found := x.of.Revocations.Get(key); found {
		x.acts[key] = r
	}
}

// take takes a registered certificate, with the identity that speaks for it and the
// revocations that concern it.
func (x *excerpt) take(row *CertRecord) {
	c := row.Certificate
	if _, had := x.certs[c.Fingerprint]; had {
		return
	}
	x.certs[c.Fingerprint] = row
	x.speakers(c.Identity)
	x.concern(c)
}

// concern takes what revokes a certificate, as a leaf or as an issuer.
func (x *excerpt) concern(c Certificate) {
	for _, key := range c.selectorKeys() {
		x.act(key)
	}
	for _, key := range c.issuerKeys() {
		x.act(key)
	}
	x.covering(Pattern(c.Identity))
}

// speakers takes the Identity objects that speak for an identity.
func (x *excerpt) speakers(id Identity) {
	for environment := range x.of.Environments.All() {
		if object, found := x.of.IdentityFor(environment, id); found {
			x.object(object)
		}
	}
}

// covering takes the revocations of all that a pattern stands for.
func (x *excerpt) covering(p Pattern) {
	for _, q := range p.covering() {
		if q == p || !x.mistakes.forgetAbove {
			x.act(identityKey(q))
		}
	}
}

// object takes an Identity object and the revocations of all that it stands for.
func (x *excerpt) object(i IdentityConfig) {
	if _, had := x.identities[i.Key()]; had {
		return
	}
	x.identities[i.Key()] = i
	x.covering(i.ID)
}

// certificates finds registered ones by their first digits.
func (x *excerpt) certificates() {
	each := max(x.q.Each, 2) // so that it is seen when a word names several
	for _, word := range x.q.Certificates {
		issuer, serial, named := strings.Cut(word, "/")
		if named {
			x.numbered(issuer, serial)
			continue
		}
		left := each
		for _, row := range x.of.Inventory.rows.prefixed(word) {
			if left--; left < 0 {
				break
			}
			x.take(row)
		}
		left = each
		for row := range x.of.Orders.in[bySerial].from(&CertRecord{Certificate: Certificate{ID: CertID{Serial: word}}}) {
			if left--; left < 0 || !strings.HasPrefix(row.Certificate.ID.Serial, word) {
				break
			}
			x.take(row)
		}
	}
}

// numbered finds the registered certificate of an issuer and a serial number.
func (x *excerpt) numbered(issuer, serial string) {
	key, err := ParseDigest(issuer)
	if err != nil {
		return // names no certificate
	}
	for row := range x.of.Orders.in[bySerial].from(&CertRecord{Certificate: Certificate{ID: CertID{Serial: serial}}}) {
		if row.Certificate.ID.Serial != serial {
			return
		}
		if row.Certificate.ID.Issuer == key {
			x.take(row)
		}
	}
}

// holders takes the certificates of an identity, or of all below a pattern, those of one
// identity in the order of their ends, the last first.
func (x *excerpt) holders(p Pattern, validAt time.Time) {
	prefix, wild := strings.CutSuffix(string(p), "*")
	last := Identity(prefix)
	if wild {
		last += "\xff" // no identity has such a byte
	}
	end := &CertRecord{Certificate: Certificate{Identity: last, NotAfter: lastInstant}}
	left, looked := x.q.Each, 0
	for row := range x.of.Orders.in[byHolder].back(end) {
		if left == 0 || !strings.HasPrefix(string(row.Certificate.Identity), prefix) || !p.Matches(row.Certificate.Identity) {
			return
		}
		if looked++; looked > maxLooked/judgedCost {
			return
		}
		if validAt.IsZero() || x.of.valid(row.Certificate, validAt) {
			left--
			x.take(row)
		}
	}
}

// lastInstant is after the end of every certificate.
var lastInstant = time.Unix(1<<40, 0)

// selected takes what selectors name: their revocations and registered certificates.
func (x *excerpt) selected() {
	for _, sel := range x.q.Selectors {
		x.act(sel.SelectorKey())
		if x.q.Each == 0 {
			continue
		}
		switch sel.Kind {
		case SelectCertificate:
			x.numbered(sel.Certificate.Issuer.String(), sel.Certificate.Serial)
		case SelectKey:
			x.held(sel.Key, x.q.Each)
		case SelectIdentity:
			x.holders(sel.Identity, time.Time{})
		}
	}
}

// held takes registered certificates of a key.
func (x *excerpt) held(key Digest, most int) {
	for row := range x.of.Orders.in[byKey].from(&CertRecord{Certificate: Certificate{Key: key}}) {
		if most--; most < 0 || row.Certificate.Key != key {
			return
		}
		x.take(row)
	}
}

// identitiesNamed takes the objects that words name, and their certificates.
func (x *excerpt) identitiesNamed() {
	for _, word := range x.q.Identities {
		patterns := map[Pattern]bool{}
		if p, err := ParsePattern(word); err == nil {
			patterns[p] = true
			x.speakers(Identity(word))
			x.covering(p)
		}
		for environment := range x.of.Environments.All() {
			for _, name := range []string{word, x.objectOf(environment, word)} {
				if object, found := x.of.Identities.Get(ObjectKey(environment, name)); found {
					x.object(object)
					patterns[object.ID] = true
				}
			}
		}
		for p := range patterns {
			x.holders(p, x.q.ValidAt)
		}
	}
	if x.q.Database != "" {
		x.granted(x.q.Database)
	}
}

// namesBegun takes the objects whose names begin as is asked.
func (x *excerpt) namesBegun() {
	for environment := range x.of.Environments.All() {
		left := x.q.Names.Limit
		for _, object := range x.of.Identities.rows.prefixed(ObjectKey(environment, x.q.Names.Prefix)) {
			if left--; left < 0 {
				break
			}
			x.object(*object)
		}
	}
}

// objectOf is the name of the object that has exactly this id.
func (x *excerpt) objectOf(environment, id string) string {
	name, _ := x.of.Grants.Get(ObjectKey(environment, id))
	return name
}

// granted takes the objects that are granted a database.
func (x *excerpt) granted(database string) {
	for i := range x.of.Identities.Values() {
		for _, g := range i.Grants {
			if g.Database == x.of.DatabaseFor(i.Environment, database) {
				x.object(i)
				break
			}
		}
	}
}

// leaves takes what decides about certificates that need not be registered.
func (x *excerpt) leaves() {
	var issuers []Digest
	for a := range x.of.Anchors.Values() {
		issuers = append(issuers, a.Certificate.Key)
	}
	for _, c := range x.q.Leaves {
		issuers = append(issuers, c.Key)
	}
	if len(x.q.Leaves) > maxLeaves {
		issuers = nil // a caller with so many knows who signed them
	}
	for _, c := range x.q.Leaves {
		if row, found := x.of.Inventory.rows.get(c.Fingerprint.String()); found {
			x.take(row)
		}
		if !x.mistakes.forgetKeys {
			x.held(c.Key, 1) // it says which environment the key belongs to
		}
		x.speakers(c.Identity)
		x.concern(c)
		for _, issuer := range issuers {
			x.act(certificateKey(CertID{Issuer: issuer, Serial: c.ID.Serial}))
		}
	}
}

// maxLeaves is how many leaves may leave out their issuers.
const maxLeaves = 100

// dependents takes the certificates that a rotation waits for, and those whose successors nobody has seen.
func (x *excerpt) dependents() {
	old, found := x.of.Anchors.Get(x.q.DependsOn.String())
	if !found {
		return
	}
	r := x.of.rotationFrom(old)
	waited, _ := x.of.Dependents(r, x.of.Time, MaxDependents+1) // one more, so that it is seen when there are more
	unseen, _ := x.of.Unseen(r, x.of.Time, MaxDependents+1)
	for _, row := range slices.Concat(waited, unseen) {
		x.take(&row)
	}
}

// authorities takes what revokes trust anchors, members and operators.
func (x *excerpt) authorities() {
	for a := range x.of.Anchors.Values() {
		x.concern(a.Certificate)
	}
	for m := range x.of.Members.Values() {
		x.concern(m.Certificate)
	}
	for o := range x.of.Operators.Values() {
		x.concern(o.Certificate)
	}
}
