package armor

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// certOrder keeps the rows of the inventory in one more order, so that a question finds its
// rows without a walk over all. It is immutable, as tables are, and costs a pointer a row.
// The zero certOrder is empty.
type certOrder struct{ m *btree.BTreeG[*CertRecord] }

// An ordering compares two rows; the fingerprint comes last in each, so that none are alike.
type ordering func(a, b *CertRecord) int

// The orders of the inventory, beside that of its fingerprints.
var orderings = [...]ordering{
	byEnd:    func(a, b *CertRecord) int { return a.Certificate.NotAfter.Compare(b.Certificate.NotAfter) },
	byHolder: holderThenEnd,
	bySerial: func(a, b *CertRecord) int { return strings.Compare(a.Certificate.ID.Serial, b.Certificate.ID.Serial) },
	byKey:    func(a, b *CertRecord) int { return slices.Compare(a.Certificate.Key[:], b.Certificate.Key[:]) },
	byIssuer: issuerThenEnd,
}

const (
	byEnd    = iota // when it ends
	byHolder        // its identity, then when it ends
	bySerial        // its serial number
	byKey           // its key
	byIssuer        // its issuer's key, whether another has replaced it, then when it ends
)

func holderThenEnd(a, b *CertRecord) int {
	return cmp.Or(strings.Compare(string(a.Certificate.Identity), string(b.Certificate.Identity)),
		a.Certificate.NotAfter.Compare(b.Certificate.NotAfter))
}

// issuerThenEnd has those in front that none has replaced, so that who waits for the others to be
// replaced need not look at them.
func issuerThenEnd(a, b *CertRecord) int {
	return cmp.Or(slices.Compare(a.Certificate.ID.Issuer[:], b.Certificate.ID.Issuer[:]), cmp.Compare(a.place(), b.place()),
		a.Certificate.NotAfter.Compare(b.Certificate.NotAfter))
}

// place is 0 while the certificate is current, and 1 once another has replaced it.
func (r *CertRecord) place() int {
	if r.ReplacedBy.IsZero() {
		return 0
	}
	return 1
}

func (o ordering) less(a, b *CertRecord) bool {
	return cmp.Or(o(a, b), slices.Compare(a.Certificate.Fingerprint[:], b.Certificate.Fingerprint[:])) < 0
}

func (o ordering) empty() *btree.BTreeG[*CertRecord] {
	return btree.NewBTreeGOptions(o.less, btree.Options{Degree: degree, NoLocks: true})
}

// edited returns the order that change makes of a copy. What is said of tree.edited holds
// for it.
func (o certOrder) edited(by ordering, change func(*btree.BTreeG[*CertRecord])) certOrder {
	if o.m == nil {
		m := by.empty()
		change(m)
		return certOrder{m}
	}
	source := *o.m
	m := source.Copy()
	change(m)
	return certOrder{m}
}

// from walks the rows from a place on.
func (o certOrder) from(place *CertRecord) iter.Seq[*CertRecord] {
	return func(yield func(*CertRecord) bool) {
		if o.m != nil {
			o.m.Ascend(place, yield)
		}
	}
}

// back walks the rows from a place on towards the first.
func (o certOrder) back(place *CertRecord) iter.Seq[*CertRecord] {
	return func(yield func(*CertRecord) bool) {
		if o.m != nil {
			o.m.Descend(place, yield)
		}
	}
}

// CertOrders are the inventory's rows in the orders in which they are asked for. They follow
// from State.Inventory.
type CertOrders struct{ in [len(orderings)]certOrder }

// index binds the certificate's key to the environment that it was issued for, and puts the
// row into the inventory's other orders.
func (r CertRecord) index(s *State) {
	s.KeyEnvironments = s.KeyEnvironments.With(r.Certificate.Key.String(), r.Environment)
	row, _ := s.Inventory.rows.get(r.Key())
	for i, by := range orderings {
		s.Orders.in[i] = s.Orders.in[i].edited(by, func(m *btree.BTreeG[*CertRecord]) { m.Set(row) })
	}
}

// unindex takes the row out of the other orders. The key stays bound while another certificate
// has it.
func (r CertRecord) unindex(s *State) {
	for i, by := range orderings {
		s.Orders.in[i] = s.Orders.in[i].edited(by, func(m *btree.BTreeG[*CertRecord]) { m.Delete(&r) })
	}
	if !s.Orders.hasKey(r.Certificate.Key) {
		s.KeyEnvironments = s.KeyEnvironments.Without(r.Certificate.Key.String())
	}
}

func (o CertOrders) hasKey(key Digest) bool {
	for row := range o.in[byKey].from(&CertRecord{Certificate: Certificate{Key: key}}) {
		return row.Certificate.Key == key
	}
	return false
}

// issuers walks the keys that have issued registered certificates.
func (o CertOrders) issuers() iter.Seq[Digest] {
	return func(yield func(Digest) bool) {
		next, found := o.issuerFrom(Digest{})
		for found {
			if !yield(next) {
				return
			}
			// The next one stands behind all that this one has issued.
			next, found = o.issuerAfter(next)
		}
	}
}

// issuerFrom is the first issuer that is not before a digest.
func (o CertOrders) issuerFrom(from Digest) (Digest, bool) {
	for row := range o.in[byIssuer].from(&CertRecord{Certificate: Certificate{ID: CertID{Issuer: from}, NotAfter: earliest}}) {
		return row.Certificate.ID.Issuer, true
	}
	return Digest{}, false
}

func (o CertOrders) issuerAfter(d Digest) (Digest, bool) {
	for i := len(d) - 1; i >= 0; i-- {
		if d[i]++; d[i] != 0 {
			return o.issuerFrom(d)
		}
	}
	return Digest{}, false // the last digest that there is
}

// pending walks the certificates of an issuer that have not ended at a time and that none has
// replaced, those that end first first; replaced those that another has.
func (o CertOrders) pending(issuer Digest, at time.Time) iter.Seq[*CertRecord] {
	return o.issued(&CertRecord{Certificate: Certificate{ID: CertID{Issuer: issuer}, NotAfter: at}})
}

func (o CertOrders) replaced(issuer Digest, at time.Time) iter.Seq[*CertRecord] {
	return o.issued(&CertRecord{Certificate: Certificate{ID: CertID{Issuer: issuer}, NotAfter: at}, ReplacedBy: Digest{1}})
}

// issued walks the certificates of one issuer in one place from a row on.
func (o CertOrders) issued(from *CertRecord) iter.Seq[*CertRecord] {
	return func(yield func(*CertRecord) bool) {
		for row := range o.in[byIssuer].from(from) {
			if row.Certificate.ID.Issuer != from.Certificate.ID.Issuer || row.place() != from.place() || !yield(row) {
				return
			}
		}
	}
}

// Ended walks the registered certificates that ended before a time, those that ended first
// first.
func (s *State) Ended(before time.Time) iter.Seq[CertRecord] {
	return func(yield func(CertRecord) bool) {
		first := &CertRecord{Certificate: Certificate{NotAfter: earliest}}
		for row := range s.Orders.in[byEnd].from(first) {
			if !row.Certificate.NotAfter.Before(before) || !yield(*row) {
				return
			}
		}
	}
}

// earliest is before the end of any certificate.
var earliest = time.Unix(math.MinInt32, 0)

// indexInventory is index for all rows of a state at once.
func indexInventory(s *State) {
	if s.Inventory.Len() == 0 {
		return
	}
	rows := make([]*CertRecord, 0, s.Inventory.Len())
	bindings := newMap[string]()
	for _, row := range s.Inventory.rows.from("") {
		rows = append(rows, row)
		bindings.Set(row.Certificate.Key.String(), row.Environment)
	}
	s.KeyEnvironments = Index{tree[string]{bindings}}
	for i, by := range orderings {
		slices.SortFunc(rows, func(a, b *CertRecord) int {
			return cmp.Or(by(a, b), slices.Compare(a.Certificate.Fingerprint[:], b.Certificate.Fingerprint[:]))
		})
		m := by.empty()
		for _, row := range rows {
			m.Load(row)
		}
		s.Orders.in[i] = certOrder{m}
	}
}
