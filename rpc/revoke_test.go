package rpc

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/armordb/armordb/armor"
)

func manyRevoked(n int) armor.Revoke {
	r := armor.Revoke{Reason: armor.Superseded, Comment: "CHG-1"}
	for i := range n {
		r.Selectors = append(r.Selectors, armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{
			Issuer: armor.Digest{1}, Serial: fmt.Sprintf("%x", 1<<40+i),
		}})
	}
	return r
}

func TestRevocationThatFitsOneCommandIsOne(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("rex", armor.Revoker), "n1")
	r := manyRevoked(1000)
	if _, err := c.RevokeAll(t.Context(), r, SubmitOptions{}, func(int, int) { t.Error("staged") }); err != nil {
		t.Fatal(err)
	}
	if all := l.proposals(); len(all) != 1 || !reflect.DeepEqual(all[0].Command, r) {
		t.Errorf("%d proposals", len(all))
	}
}

func TestLargeRevocationIsStagedAndRetriedWithTheSameIDs(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("rex", armor.Revoker), "n2", "n1")
	r := manyRevoked(5000)
	parts := len(armor.StagingParts(r.Selectors))
	l.onPropose(func(_ *labNode, p armor.Request) (armor.Result, error) {
		if s, ok := p.Command.(armor.StageRevocations); ok && s.Part == 2 {
			return armor.Result{}, fmt.Errorf("%w: too many parts", armor.ErrExhausted)
		}
		return l.commit(p)
	})
	id := NewRequestID()
	out, err := c.RevokeAll(t.Context(), r, SubmitOptions{RequestID: id}, nil)
	if !errors.Is(err, armor.ErrExhausted) || out.RequestID != id || out.Result.Revision != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	first := l.proposals()
	l.onPropose(nil)
	var told []int
	out, err = c.RevokeAll(t.Context(), r, SubmitOptions{RequestID: id, Wait: WaitAll}, func(done, of int) { told = append(told, done, of) })
	if err != nil || out.RequestID != id || out.Result.Revision == 0 || out.Enforcement == nil {
		t.Fatalf("%+v, %v", out, err)
	}
	again := l.proposals()[len(first):]
	if len(first) != 2 || len(again) != parts+1 || len(told) != 2*parts || told[2*parts-2] != parts {
		t.Fatalf("%d and %d proposals, told %v", len(first), len(again), told)
	}
	var staged []armor.Selector
	for i, p := range again[:parts] {
		s := p.Command.(armor.StageRevocations)
		staged = append(staged, s.Selectors...)
		if s.Batch != id || s.Part != i+1 || p.ID != StepID(id, i+1) || i < 2 && p.ID != first[i].ID {
			t.Errorf("part %d: %s of batch %s, request %s", i, s.Kind(), s.Batch, p.ID)
		}
		if m, err := requestMessage(p); err != nil || proto.Size(m) > maxChunk {
			t.Errorf("part %d: %v", i, err)
		}
	}
	want := armor.RevokeStaged{
		Batch: id, Parts: parts, Digest: armor.StagingDigest(r.Selectors), Reason: armor.Superseded, Comment: "CHG-1",
	}
	if last := again[parts]; last.ID != id || last.Command != want || !slices.Equal(staged, r.Selectors) {
		t.Errorf("in the end %+v", last)
	}
}

func TestMoreThanAClusterKeepsIsRefusedBeforeAnythingIsStaged(t *testing.T) {
	l := newLab(t, 1)
	c := l.client(l.enrol("rex", armor.Revoker), "n1")
	r := manyRevoked(1)
	r.Selectors[0].Certificate.Serial = strings.Repeat("a", armor.MaxStagedPart/2) // one makes a part
	r.Selectors = slices.Repeat(r.Selectors, armor.MaxStagedParts+1)
	if _, err := c.RevokeAll(t.Context(), r, SubmitOptions{}, nil); !errors.Is(err, armor.ErrInvalid) {
		t.Error(err)
	}
	if err := c.DryRunAll(t.Context(), r); !errors.Is(err, armor.ErrInvalid) {
		t.Error("dry run:", err)
	}
	if n := len(l.proposals()); n > 0 {
		t.Errorf("%d proposals", n)
	}
}

func TestDryRunAndPreviewOfALargeRevocationLookAtAllParts(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("rex", armor.Revoker), "n2")
	r := manyRevoked(5000)
	one := armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/web"}
	all := armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/*"}
	r.Selectors = slices.Concat([]armor.Selector{one}, r.Selectors, []armor.Selector{all})
	for i, n := range []*labNode{l.nodes["n1"], l.nodes["n2"]} {
		n.sessions = []armor.SessionInfo{
			{ID: 7, Node: n.id, Certificate: armor.Certificate{Identity: "spiffe://dev.acme/web"}},
			{ID: uint64(i + 1), Node: n.id, Certificate: armor.Certificate{Identity: "spiffe://dev.acme/api"}},
			{ID: 9, Node: n.id, Certificate: armor.Certificate{Identity: "spiffe://prod.acme/web"}},
		}
	}
	survey, err := c.Preview(t.Context(), r.Selectors)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range survey.Sessions {
		got = append(got, fmt.Sprint(s.Node, s.ID))
	}
	if !slices.Equal(got, []string{"n11", "n17", "n22", "n27"}) || len(survey.Silent) != 0 {
		t.Errorf("%v, silent %v", got, survey.Silent)
	}
	if err := c.DryRunAll(t.Context(), r); err != nil || len(l.proposals()) != 0 {
		t.Error(err, len(l.proposals()))
	}
	viewer := l.client(l.enrol("vic", armor.Viewer), "n1")
	if err := viewer.DryRunAll(t.Context(), r); !errors.Is(err, armor.ErrDenied) {
		t.Error("a viewer:", err)
	}
}

func TestRetriedStepsHaveIdsThatFollowFromTheCommandsId(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	if StepID(id, 0) != id || StepID("", 1) != "" {
		t.Error("the first step has an id of its own")
	}
	second := StepID(id, 1)
	if second != StepID(id, 1) || second == id || second == StepID(id, 2) {
		t.Error("ids of steps do not follow from the command's")
	}
	if _, err := armor.ParseRequestID(string(second)); err != nil {
		t.Error(err)
	}
}
