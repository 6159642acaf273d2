package fsm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

// lab drives a machine as a leader would, and keeps what it applied. Names stand for
// keys: the certificate "a" always has the same digests.
type lab struct {
	t       rapid.TB
	machine *Machine
	now     time.Time
	index   uint64
	term    uint64
	keys    map[string]*ecdsa.PrivateKey // operators' keys
	ids     int
	entries [][]byte
}

var epoch = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const clusterID = "0123456789abcdef0123456789abcdef"

func newLab(t rapid.TB) *lab {
	t.Helper()
	return &lab{t: t, machine: New(), now: epoch, term: 1, keys: map[string]*ecdsa.PrivateKey{}}
}

// governed returns a lab with a cluster of the given nodes and the operator ada, who
// has every role.
func governed(t rapid.TB, nodes ...string) *lab {
	t.Helper()
	l := newLab(t)
	l.must(l.node("n1", l.bootstrap("n1", "ada")))
	for _, n := range nodes {
		l.admit(n)
	}
	return l
}

func (l *lab) admit(n string) {
	l.t.Helper()
	l.must(l.by("ada", l.token(n, time.Hour)))
	l.must(l.node("n1", l.join(n)))
	l.must(l.by("ada", l.approve(n)))
}

func (l *lab) state() *armor.State {
	s, _ := l.machine.Current()
	return s
}

// request makes a signed request with the next id.
func (l *lab) request(principal string, c armor.Command) armor.Request {
	l.t.Helper()
	l.ids++
	r := armor.Request{
		ID: armor.RequestID(fmt.Sprintf("%032x", l.ids)), Principal: principal,
		Expires: l.now.Add(10 * time.Minute), Command: c,
	}
	return l.sign(r)
}

func (l *lab) sign(r armor.Request) armor.Request {
	l.t.Helper()
	key := l.keys[r.Principal]
	if key == nil {
		return r
	}
	digest := r.SigningDigest(clusterID)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		l.t.Fatal(err)
	}
	r.Signature = signature
	return r
}

func (l *lab) by(operator string, c armor.Command) armor.Result {
	l.t.Helper()
	return l.apply(l.request(operator, c))
}

func (l *lab) node(n string, c armor.Command) armor.Result {
	l.t.Helper()
	return l.apply(l.request("node/"+n, c))
}

// apply encodes and applies, and holds Check to its word: it must foresee the outcome
// and change nothing.
func (l *lab) apply(r armor.Request) armor.Result {
	l.t.Helper()
	before := l.machine.Mark()
	entry, foreseen := l.machine.Check(r, l.now)
	if l.machine.Mark() != before {
		l.t.Fatal("Check changed the state")
	}
	var err error
	if foreseen != nil {
		if entry, err = Encode(r, l.now); err != nil {
			l.t.Fatalf("encode %s: %v", r.Command.Kind(), err)
		}
	}
	l.index++
	result, err := l.machine.Apply(l.index, l.term, entry)
	if err != nil {
		l.t.Fatalf("apply %s: %v", r.Command.Kind(), err)
	}
	if (foreseen == nil) != (result.Err == nil) || foreseen != nil && foreseen.Error() != result.Err.Error() {
		l.t.Fatalf("Check said %v, and Apply %v", foreseen, result.Err)
	}
	l.entries = append(l.entries, entry)
	return result
}

func (l *lab) must(r armor.Result) armor.Result {
	l.t.Helper()
	if r.Err != nil {
		l.t.Fatal(r.Err)
	}
	return r
}

func digest(parts ...string) armor.Digest { return sha256.Sum256(fmt.Append(nil, parts)) }

// leaf is the certificate of a name, signed by the CA named issuer.
func (l *lab) leaf(name, issuer string, id armor.Identity) armor.Certificate {
	fingerprint := digest("der", name)
	return armor.Certificate{
		ID:          armor.CertID{Issuer: digest("key", issuer), Serial: "a" + digest("serial", name).Short()},
		Fingerprint: fingerprint, Key: digest("key", name), Identity: id,
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(365 * 24 * time.Hour),
	}
}

func ca(name string) (armor.Certificate, []byte) {
	der := []byte("DER of CA " + name)
	return armor.Certificate{
		ID:          armor.CertID{Issuer: digest("key", name), Serial: "1"},
		Fingerprint: sha256.Sum256(der), Key: digest("key", name),
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(10 * 365 * 24 * time.Hour),
	}, der
}

var cluster = armor.Cluster{ID: clusterID, Name: "Acme", PeerCA: []byte("DER of CA peer")}

func (l *lab) bootstrap(node, operator string) armor.Bootstrap {
	return armor.Bootstrap{
		Cluster: cluster,
		Member: armor.Member{
			ID: armor.NodeID(node), Certificate: l.nodeCert(node), PeerAddress: node + ":7432", Voter: true,
		},
		Operator: l.operator(operator, armor.OperatorRoles()...),
	}
}

func (l *lab) nodeCert(n string) armor.Certificate {
	c := l.leaf(n, "peer", cluster.NodeIdentity(armor.NodeID(n)))
	c.Fingerprint = sha256.Sum256(nodeDER(n))
	return c
}

func nodeDER(n string) []byte { return []byte("DER of node " + n) }

// operator makes the operator's key, which follows from the name, when it is first
// used.
func (l *lab) operator(name string, roles ...armor.OperatorRole) armor.Operator {
	l.t.Helper()
	key := l.keys[name]
	if key == nil {
		scalar := digest("private", name)
		var err error
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:]); err != nil {
			l.t.Fatal(err)
		}
		l.keys[name] = key
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		l.t.Fatal(err)
	}
	c := l.leaf("operator "+name, "peer", cluster.OperatorIdentity(name))
	c.Key = sha256.Sum256(append(slices.Clone(p256SPKI), point...))
	return armor.Operator{Name: name, Certificate: c, PublicKey: point, Roles: roles}
}

func (l *lab) anchor(name, env, prefix string) armor.PutAnchor {
	c, der := ca(name)
	return armor.PutAnchor{Anchor: armor.TrustAnchor{Name: name, Environment: env, Prefix: armor.Pattern(prefix), Certificate: c, DER: der}}
}

func tokenHash(n string) armor.Digest { return digest("token", n) }

func (l *lab) token(n string, life time.Duration) armor.CreateJoinToken {
	return armor.CreateJoinToken{Token: armor.JoinToken{Hash: tokenHash(n), Node: armor.NodeID(n), Voter: true, Expires: l.now.Add(life)}}
}

func (l *lab) join(n string) armor.RequestJoin {
	return armor.RequestJoin{Token: tokenHash(n), Request: armor.JoinRequest{
		Node: armor.NodeID(n), CSR: []byte("CSR of " + n), PeerAddress: n + ":7432", ClientAddress: n + ":6432",
	}}
}

func (l *lab) approve(n string) armor.ApproveJoin {
	return armor.ApproveJoin{Node: armor.NodeID(n), Certificate: l.nodeCert(n), Chain: [][]byte{nodeDER(n), cluster.PeerCA}}
}

func batchID(name string) armor.RequestID {
	return armor.RequestID(digest("batch", name).String()[:32])
}

func database(env, name string, roles ...string) armor.Database {
	db := armor.Database{Name: name, Environment: env, Hosts: []string{"pg1:5432"}, DBName: name, TLSMode: armor.TLSVerifyFull, CA: "pg-ca"}
	for _, r := range roles {
		db.Roles = append(db.Roles, armor.RoleAuth{Role: r, Secret: armor.SecretName(name + "-" + r)})
	}
	return db
}

func pool(env, name, db string, budget int) armor.Pool {
	return armor.Pool{Name: name, Environment: env, Database: db, Mode: armor.TransactionMode, Budget: budget}
}

// replayed applies the same entries to a machine, from a given one on.
func (l *lab) replayed(m *Machine, from int) *Machine {
	l.t.Helper()
	for i := from; i < len(l.entries); i++ {
		if _, err := m.Apply(uint64(i+1), l.term, l.entries[i]); err != nil {
			l.t.Fatal(err)
		}
	}
	return m
}

// invariants are what holds after every command, whatever it was.
func (l *lab) invariants(before *armor.State) {
	l.t.Helper()
	after := l.state()
	for key, old := range before.Revocations.All() {
		r, found := after.Revocations.Get(key)
		if !found || wider(old.Selector, r.Selector) {
			l.t.Fatalf("%s is revoked less than it was", old.Selector)
		}
	}
	for key := range pools(before, after) {
		p, _ := after.Pools.Get(key)
		was, is := granted(before.SharesOf(key)), granted(after.SharesOf(key))
		if is > p.Budget && is > was {
			l.t.Fatalf("pool %s: %d granted of %d, and it was %d", key, is, p.Budget, was)
		}
		if sum := targeted(after.SharesOf(key)); sum > p.Budget {
			l.t.Fatalf("pool %s: targets %d of %d", key, sum, p.Budget)
		}
	}
	if after.Cluster.ID == "" {
		return
	}
	d := (&world{state: after}).edit()
	if s := d.strength(); s.voters == 0 || s.validVoters < s.voters/2+1 || s.admins == 0 {
		l.t.Fatalf("the cluster cannot be governed: %+v", s)
	}
}

func pools(states ...*armor.State) map[string]bool {
	keys := map[string]bool{}
	for _, s := range states {
		for key := range s.Pools.All() {
			keys[key] = true
		}
		for share := range s.Shares.Values() {
			keys[share.Pool] = true
		}
	}
	return keys
}
