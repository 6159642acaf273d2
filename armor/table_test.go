package armor_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

// word is a row that is its own key but for its first letter.
type word string

func (w word) Key() string { return string(w[1:]) }

func words(t armor.Table[word]) string { return fmt.Sprint(slices.Collect(t.Values())) }

func TestTableStaysSortedAndImmutable(t *testing.T) {
	var empty armor.Table[word]
	one := empty.With("1b").With("1a", "1c")
	two := one.With("2b").Without("a").Without("x")
	if words(empty) != "[]" || words(one) != "[1a 1b 1c]" || words(two) != "[2b 1c]" || one.Len() != 3 {
		t.Fatal(words(empty), words(one), words(two))
	}
	if v, found := two.Get("b"); v != "2b" || !found || two.Has("a") || !one.Has("a") {
		t.Fatal(v, found)
	}
}

// Whatever is done to tables in whatever order, each stays what it was made.
func TestTablesAreWhatMapsWouldBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tables := []armor.Table[word]{{}}
		models := []map[string]word{{}}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, len(tables)-1).Draw(t, "from")
			w := word(rapid.StringMatching("[a-c][a-z]{1,2}").Draw(t, "word"))
			model := maps.Clone(models[i])
			next := tables[i].With(w)
			if rapid.Bool().Draw(t, "remove") {
				next = tables[i].Without(w.Key())
				delete(model, w.Key())
			} else {
				model[w.Key()] = w
			}
			tables, models = append(tables, next), append(models, model)
		}
		prefix := rapid.StringMatching("[a-z]?").Draw(t, "prefix")
		for i, table := range tables {
			if got := maps.Collect(table.All()); !maps.Equal(got, models[i]) || table.Len() != len(models[i]) {
				t.Fatalf("table %d is %v, not %v", i, got, models[i])
			}
			var last string
			count := 0
			for key := range table.Prefixed(prefix) {
				if key < last || !strings.HasPrefix(key, prefix) {
					t.Fatalf("%q after %q, below %q", key, last, prefix)
				}
				last, count = key, count+1
			}
			maps.DeleteFunc(models[i], func(key string, _ word) bool { return !strings.HasPrefix(key, prefix) })
			if count != len(models[i]) {
				t.Fatalf("%d below %q, not %d", count, prefix, len(models[i]))
			}
		}
	})
}

func anySelector(t *rapid.T) armor.Selector {
	digest := func(name string) (d armor.Digest) {
		d[0], d[31] = rapid.Byte().Draw(t, name), rapid.ByteRange(0, 1).Draw(t, name)
		return d
	}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{
			Issuer: digest("issuer"), Serial: rapid.StringMatching("[1-9a-f][0-9a-f]{0,5}").Draw(t, "serial"),
		}}
	case 1:
		return armor.Selector{Kind: armor.SelectKey, Key: digest("key")}
	case 2:
		return armor.Selector{Kind: armor.SelectIssuer, Issuer: digest("issuer")}
	case 3: // more than belongs to its kind
		return armor.Selector{Kind: armor.SelectKey, Key: digest("key"), Issuer: digest("issuer"), Identity: "spiffe://a/b"}
	default:
		s := armor.Selector{Kind: armor.SelectIdentity,
			Identity: armor.Pattern("spiffe://a/" + rapid.StringMatching("[a-z]{1,3}").Draw(t, "identity"))}
		if rapid.Bool().Draw(t, "before") {
			s.IssuedBefore = time.Unix(rapid.Int64Range(-1e9, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).UTC()
		}
		return s
	}
}

func TestRevocationsGiveBackWhatWasPutInTheOrderOfTheirWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table armor.Revocations
		want := map[string]armor.Revocation{}
		for range rapid.IntRange(1, 30).Draw(t, "rows") {
			r := armor.Revocation{
				Selector: anySelector(t), Reason: armor.KeyCompromise, Comment: rapid.String().Draw(t, "comment"), By: "ada",
				At: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 7).UTC(), Revision: rapid.Uint64().Draw(t, "revision"),
			}
			if rapid.Bool().Draw(t, "no time") {
				r.At = time.Time{}
			}
			table = table.With(r)
			want[r.Key()] = r
		}
		if got := slices.Collect(table.Values()); len(got) != len(want) || table.Len() != len(want) {
			t.Fatalf("%d rows, not %d", len(got), len(want))
		}
		last := ""
		for key, r := range table.All() {
			if found, ok := table.Get(key); !ok || found != want[r.Key()] || r != found || key != r.Selector.SelectorKey() {
				t.Fatalf("%s is\n%+v, not\n%+v", r.Key(), r, want[r.Key()])
			}
			if r.Key() < last {
				t.Fatalf("%s after %s", r.Key(), last)
			}
			last = r.Key()
		}
	})
}

func TestEveryTableIsFilledAsItIsWalked(t *testing.T) {
	s := &armor.State{Revision: 1}
	armor.Inventory.Put(s,
		armor.CertRecord{Certificate: armor.Certificate{Fingerprint: armor.Digest{1}, Key: armor.Digest{2}}, Environment: "dev"})
	armor.Identities.Put(s, armor.IdentityConfig{Name: "web", Environment: "dev", ID: "spiffe://dev.acme/web"})
	armor.Revoked.Put(s, armor.Revocation{Selector: armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{3}}, Revision: 1})
	armor.Pools.Put(s, armor.Pool{Name: "app", Environment: "dev"}, armor.Pool{Name: "bulk", Environment: "dev"})
	copied := &armor.State{}
	for _, table := range armor.Tables() {
		add, done := table.Fill(copied)
		for row := range table.Rows(s) {
			fresh := table.New()
			reflect.ValueOf(fresh).Elem().Set(reflect.ValueOf(row))
			if !add(fresh) {
				t.Errorf("%s: %s is there twice", table.Name(), row.Key())
			}
			if add(fresh) {
				t.Errorf("%s: %s could be added twice", table.Name(), row.Key())
			}
		}
		done()
		if got, want := fmt.Sprint(rowsOf(table, copied)), fmt.Sprint(rowsOf(table, s)); got != want {
			t.Errorf("%s: %s, not %s", table.Name(), got, want)
		}
	}
	if fmt.Sprint(maps.Collect(copied.Grants.All()), maps.Collect(copied.KeyEnvironments.All())) !=
		fmt.Sprint(maps.Collect(s.Grants.All()), maps.Collect(s.KeyEnvironments.All())) || s.Grants.Len() != 1 || s.KeyEnvironments.Len() != 1 {
		t.Error("what follows from the tables differs")
	}
}

func rowsOf(t armor.AnyTable, s *armor.State) (all []armor.Row) {
	for row := range t.Rows(s) {
		all = append(all, row)
	}
	return all
}

func TestSwappedPatternsSpeakForTheirNewObjects(t *testing.T) {
	s := &armor.State{Revision: 1}
	a := armor.IdentityConfig{Name: "a", Environment: "dev", ID: "spiffe://dev/1"}
	b := armor.IdentityConfig{Name: "b", Environment: "dev", ID: "spiffe://dev/2"}
	armor.Identities.Put(s, a, b)
	a.ID, b.ID = b.ID, a.ID
	armor.Identities.Put(s, a)
	armor.Identities.Put(s, b)
	for id, name := range map[string]string{"spiffe://dev/1": "b", "spiffe://dev/2": "a"} {
		if got, _ := s.Grants.Get(armor.ObjectKey("dev", id)); got != name {
			t.Errorf("%s is spoken for by %q, not %q", id, got, name)
		}
	}
	armor.Identities.Remove(s, a)
	if s.Grants.Len() != 1 || s.Identities.Len() != 1 {
		t.Error("a removed object still speaks for its identities")
	}
}
