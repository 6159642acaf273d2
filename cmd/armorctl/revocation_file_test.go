package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

var exported = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// someRevocations has one of each kind.
func someRevocations() *armor.State {
	s := &armor.State{Revision: 9, Time: exported, Cluster: armor.Cluster{ID: strings.Repeat("ab", 16), Name: "Acme"}}
	for _, r := range []armor.Revocation{
		{Selector: armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: armor.Digest{1}, Serial: "4f1a"}},
			Reason: armor.Superseded},
		{Selector: armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{2}}, Reason: armor.KeyCompromise, Comment: "<a \"laptop\"\n\u2028>"},
		{Selector: armor.Selector{Kind: armor.SelectIssuer, Issuer: armor.Digest{3}}, Reason: armor.CACompromise},
		{Selector: armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/*"}, Reason: armor.Unspecified},
		{Selector: armor.Selector{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/web", IssuedBefore: exported.Add(time.Nanosecond)},
			Reason: armor.KeyCompromise},
	} {
		r.At, r.By, r.Revision = exported, "ada", 7
		s.Revocations = s.Revocations.With(r)
	}
	return s
}

func written(t testing.TB, s *armor.State) []byte {
	t.Helper()
	var b bytes.Buffer
	head := revocationHead{Format: revocationFormat, Cluster: "Acme", ClusterID: s.Cluster.ID, Revision: 9, Count: s.Revocations.Len()}
	if err := writeRevocations(&b, head, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRevocationsAreReadAsTheyWereWritten(t *testing.T) {
	s := someRevocations()
	head, all, err := readRevocations("f", bytes.NewReader(written(t, s)))
	if err != nil || head.Count != 5 || head.Revision != 9 {
		t.Fatal(head, err)
	}
	for _, r := range all {
		was, found := s.Revocations.Get(r.Selector.SelectorKey())
		if !found || was != r {
			t.Errorf("%+v was %+v", r, was)
		}
	}
}

// resealed makes the last line fit those before.
func resealed(lines ...string) string {
	text := strings.Join(lines, "\n") + "\n"
	sum := sha256.Sum256([]byte(text))
	return text + `{"sha256":"` + hex.EncodeToString(sum[:]) + `"}` + "\n"
}

func TestAFileOfRevocationsIsReadWholeOrNotAtAll(t *testing.T) {
	good := string(written(t, someRevocations()))
	lines := strings.Split(strings.TrimSpace(good), "\n")
	head := `{"format":"armor revocations v1","cluster":"Acme","clusterId":"ab","revision":9,"logTime":"","exported":"","count":1}`
	line := func(kind, selector, more string) string {
		return `{"kind":"` + kind + `","selector":"` + selector + `",` +
			`"reason":"superseded","at":"2026-01-02T03:04:05Z","by":"ada","revision":7` + more + `}`
	}
	digest, long := strings.Repeat("a", 64), strings.Repeat("x", maxRevocationLine)
	if _, _, err := readRevocations("f", strings.NewReader(resealed(head, line("key", digest, "")))); err != nil {
		t.Fatal("the good one:", err)
	}
	for name, c := range map[string]struct{ text, says string }{
		"a word changed":          {strings.Replace(good, "superseded", "unspecified", 1), "f:7: invalid: the checksum"},
		"a line gone":             {strings.Join(append(lines[:1:1], lines[2:]...), "\n"), "f:6: "},
		"cut short":               {strings.Join(lines[:4], "\n"), "f:5: invalid: the file is cut short"},
		"no end":                  {strings.Join(lines[:6], "\n"), "f:7: invalid: the file is cut short"},
		"appended":                {good + "{}\n", "f:8: invalid: the file goes on"},
		"empty":                   {"", "f:1: invalid: the file is cut short"},
		"something else":          {"{}\n", "no file of revocations"},
		"another format":          {resealed(strings.Replace(head, "v1", "v2", 1)), "no file of revocations"},
		"a count out of bounds":   {resealed(strings.Replace(head, `"count":1`, `"count":4000001`, 1)), "no file of revocations"},
		"a cluster with escapes":  {resealed(strings.Replace(head, "Acme", `\u001b[2J`, 1)), "no file of revocations"},
		"an unknown field":        {resealed(head, line("key", digest, `,"until":"tomorrow"`)), `unknown field "until"`},
		"an unknown kind":         {resealed(head, line("door", digest, "")), "not one of certificate"},
		"an unknown reason":       {resealed(head, strings.Replace(line("key", digest, ""), "superseded", "because", 1)), "because"},
		"a serial with escapes":   {resealed(head, line("certificate", digest+`/\u001b[2J`, "")), "serial number"},
		"an instant of a key":     {resealed(head, line("key", digest, `,"issuedBefore":"2026-01-02T03:04:05Z"`)), "goes with an identity"},
		"an instant that is none": {resealed(head, line("identity", "spiffe://a.b/c", `,"issuedBefore":"9999-01-02T03:04:05Z"`)), "is no time"},
		"two objects in a line":   {resealed(head, line("key", digest, "")+"{}"), "more than one object"},
		"a long line":             {resealed(head, line("key", digest, `,"comment":"`+long+`"`)), "f:2: invalid: more than"},
	} {
		_, all, err := readRevocations("f", strings.NewReader(c.text))
		if !errors.Is(err, armor.ErrInvalid) || !strings.Contains(err.Error(), c.says) || all != nil {
			t.Errorf("%s: %d revocations, %v", name, len(all), err)
		}
	}
}

func FuzzRevocationFile(f *testing.F) {
	f.Add(written(f, someRevocations()))
	f.Add([]byte(`{"format":"armor revocations v1","cluster":"A","clusterId":"ab","count":1}` + "\n{}\n{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, all, err := readRevocations("f", bytes.NewReader(b))
		if err != nil && all != nil {
			t.Error("half a file")
		}
		for _, r := range all {
			if err := r.Selector.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}

// What the cluster has is never sent again, and what it has narrower always is.
func TestAUnionIsWhatIsMissing(t *testing.T) {
	const web = armor.Pattern("spiffe://dev.acme/web")
	at := func(reason armor.RevocationReason, before, at time.Time) armor.Revocation {
		return armor.Revocation{Selector: armor.Selector{Kind: armor.SelectIdentity, Identity: web, IssuedBefore: before}, Reason: reason, At: at}
	}
	early, late, now := exported.Add(-24*time.Hour), exported, exported.Add(time.Hour)
	dated := func(before time.Time) armor.Revocation { return at(armor.Superseded, before, now) }
	locked := func(before time.Time) armor.Revocation { return at(armor.KeyCompromise, before, before) }
	for name, c := range map[string]struct {
		ours, theirs armor.Revocation
		sent         bool
		before       time.Time // what is sent
	}{
		"the same":                               {dated(late), dated(late), false, now},
		"wider here":                             {dated(late), dated(early), false, now},
		"wider there":                            {dated(early), dated(late), true, late},
		"all of it here":                         {dated(time.Time{}), locked(late), false, now},
		"all of it there":                        {dated(late), dated(time.Time{}), true, time.Time{}},
		"locked here":                            {locked(late), dated(early), false, now},
		"locked here and later there":            {locked(early), dated(late), true, now},
		"locked there":                           {dated(late), locked(early), true, now},
		"locked in both":                         {locked(late), locked(early), false, now},
		"locked in both, there later":            {locked(early), locked(late), true, now},
		"a compromise of the past, by its dates": {dated(late), at(armor.KeyCompromise, early, late), false, now},
	} {
		s := &armor.State{}
		s.Revocations = s.Revocations.With(c.ours)
		u := missingOf(s, []armor.Revocation{c.theirs}, now)
		if (len(u.missing) > 0) != c.sent {
			t.Errorf("%s: sent is %v", name, u.missing)
			continue
		}
		for reason, selectors := range u.missing {
			if locks(c.ours) && !c.before.IsZero() && reason != armor.KeyCompromise {
				t.Errorf("%s: %s opens what is locked here", name, reason)
			}
			if !selectors[0].IssuedBefore.Equal(c.before) {
				t.Errorf("%s: %s is sent, want before %s", name, selectors[0], c.before)
			}
		}
	}
}

func TestAUnionThatIsTooLargeForOneCommitMakesSeveral(t *testing.T) {
	u := union{missing: map[armor.RevocationReason][]armor.Selector{}}
	const count = 1_000_000
	for i := range count {
		u.missing[armor.Superseded] = append(u.missing[armor.Superseded],
			armor.Selector{Kind: armor.SelectKey, Key: armor.Digest{byte(i), byte(i >> 8), byte(i >> 16), 1}})
	}
	sent := 0
	commands := u.commands("c")
	for _, c := range commands {
		if len(armor.StagingParts(c.Selectors)) > armor.MaxStagedParts {
			t.Error("a commit of more parts than a cluster keeps")
		}
		sent += len(c.Selectors)
	}
	if sent != count || len(commands) < 2 {
		t.Errorf("%d commits with %d selectors", len(commands), sent)
	}
}
