package armor_test

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/armordb/armordb/armor"
)

func manySelectors(n int) (all []armor.Selector) {
	for i := range n {
		all = append(all, armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{
			Issuer: armor.Digest{1}, Serial: fmt.Sprintf("%x", 1<<40+i),
		}})
	}
	return all
}

func TestPartsHoldAllSelectorsInOrderAndKeepTheBound(t *testing.T) {
	for _, n := range []int{0, 1, 5, 5000} {
		all := manySelectors(n)
		parts := armor.StagingParts(all)
		if got := slices.Concat(parts...); !reflect.DeepEqual(got, all) {
			t.Fatalf("%d selectors: the parts hold %d", n, len(got))
		}
		for i, part := range parts {
			size := len(armor.Canonical(part))
			if len(part) == 0 || size > armor.MaxStagedPart {
				t.Errorf("%d selectors: part %d holds %d in %d bytes", n, i, len(part), size)
			}
			if last := i == len(parts)-1; !last && size+len(armor.Canonical(parts[i+1][0])) <= armor.MaxStagedPart {
				t.Errorf("%d selectors: part %d has room for more", n, i)
			}
		}
	}
}

func TestStagingDigestIsOfTheCanonicalSelectors(t *testing.T) {
	for _, n := range []int{0, 1, 300} {
		all := manySelectors(n)
		if got, want := armor.StagingDigest(all), armor.Digest(sha256.Sum256(armor.Canonical(all))); got != want {
			t.Errorf("%d selectors: %s, not %s", n, got, want)
		}
	}
}

func TestPartsOfABatchSortByTheirNumbers(t *testing.T) {
	s := &armor.State{Revision: 1}
	for _, part := range []int{10, 2, 256, 1} {
		armor.Staged.Put(s, armor.StagedRevocations{Batch: "b", Part: part})
	}
	armor.Staged.Put(s, armor.StagedRevocations{Batch: "ba", Part: 1})
	var got []int
	for _, p := range s.Staged.Prefixed(armor.StagedBatch("b")) {
		got = append(got, p.Part)
	}
	if !slices.Equal(got, []int{1, 2, 10, 256}) {
		t.Error(got)
	}
}
