package saved_test

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
)

func TestAFileHoldsTheWholeState(t *testing.T) {
	l := newLab(t, "Acme")
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, l.file(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := saved.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := f.Verify(l.ca)
	if err != nil {
		t.Fatal(err)
	}
	if f.Manifest.Mark() != l.machine.Mark() || s.Revision != l.index || s.Revocations.Len() != 1 || f.Manifest.By != "ada" {
		t.Errorf("manifest %+v of revision %d", f.Manifest, s.Revision)
	}
	restored := fsm.New()
	if err := restored.Restore(f.Snapshot()); err != nil || restored.Mark() != l.machine.Mark() {
		t.Error("a machine that begins with it stands elsewhere", err)
	}
}

func TestAnOperatorSignsBelow(t *testing.T) {
	l := newLab(t, "Acme")
	b := l.file()
	f, err := saved.NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	more, err := f.Sign(l.ada)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, more...)
	if _, err := verify(b, l.ca); err != nil {
		t.Fatal(err)
	}
	f, _ = saved.NewFile(bytes.NewReader(b), int64(len(b)))
	if s := f.Signatures(); len(s) != 2 || s[0].Kind != pki.Node || s[1].Kind != pki.Operator || s[1].Name != "ada" {
		t.Errorf("signatures %+v", s)
	}
}

// Each line is a planted mistake of Verify: without the check that it is about, the file passes.
func TestWhatWasNotSavedIsRefused(t *testing.T) {
	l, other := newLab(t, "Acme"), newLab(t, "Other")
	good := l.file()
	f, err := saved.NewFile(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	begins := bytes.Index(good, []byte("ARMRSNAP"))
	ends := begins + int(f.Manifest.Length)
	now := origin
	now.At = time.Now()
	signed := func(by saved.Signer) []byte {
		more, err := f.Sign(by)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(good, more)
	}
	posing := func(chain [][]byte, key crypto.Signer) saved.Signer {
		return saved.Signer{Kind: pki.Node, Name: "n1", Chain: chain, Key: key}
	}
	as := func(by saved.Signer, name string) saved.Signer { by.Name = name; return by }
	flip := func(at int) []byte { b := bytes.Clone(good); b[at] ^= 1; return b }
	manifest := func(old, new string) []byte {
		b := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(b, good) {
			t.Fatalf("no %q in it", old)
		}
		return b
	}
	for name, c := range map[string]struct {
		file []byte
		want error
		says string
	}{
		"a bit of the state":                   {flip(begins + int(f.Manifest.Length)/2), armor.ErrInvalid, "the checksum does not hold"},
		"a word of the manifest":               {manifest("\x03ada", "\x03eve"), armor.ErrDenied, "not what was signed"},
		"the signature":                        {flip(len(good) - 3), armor.ErrDenied, ""},
		"cut short in the signature":           {good[:len(good)-1], armor.ErrInvalid, "cut short"},
		"cut short before the signature":       {good[:ends], armor.ErrDenied, "has not signed it"},
		"cut short in the state":               {good[:ends-1], armor.ErrInvalid, "cut short"},
		"cut short in the manifest":            {good[:begins-1], armor.ErrInvalid, "cut short"},
		"empty":                                {nil, armor.ErrInvalid, "no saved state"},
		"bytes appended":                       {append(bytes.Clone(good), 0, 0), armor.ErrInvalid, "bytes follow"},
		"an empty signature appended":          {append(bytes.Clone(good), 0, 0, 0, 0), armor.ErrInvalid, "signature"},
		"another format":                       {manifest("ARMRSAVE\x00\x01", "ARMRSAVE\x00\x02"), armor.ErrInvalid, "use a newer one"},
		"a node that is no member":             {l.fileOf(now, l.signer(pki.Node, "n9")), armor.ErrDenied, "n1, which is to have saved"},
		"a node that is no member signs, too":  {signed(l.signer(pki.Node, "n9")), armor.ErrDenied, "knows none of that name and key"},
		"a member's name with another key":     {l.fileOf(now, l.signer(pki.Node, "n1")), armor.ErrDenied, "knows none of that name and key"},
		"an operator with another key":         {signed(l.signer(pki.Operator, "ada")), armor.ErrDenied, "knows none of that name and key"},
		"an operator instead of a node":        {l.fileOf(now, l.ada), armor.ErrDenied, "n1, which is to have saved"},
		"an operator as the node":              {l.fileOf(now, posing(l.ada.Chain, l.ada.Key)), armor.ErrDenied, "has the certificate of operator"},
		"somebody else's certificate":          {l.fileOf(now, posing(l.node.Chain, l.ada.Key)), armor.ErrDenied, "not what was signed"},
		"another name":                         {signed(as(l.ada, "bob")), armor.ErrDenied, "has the certificate of operator ada"},
		"the whole of another cluster":         {other.file(), armor.ErrDenied, "verify peer certificate"},
		"our node, another cluster's state":    {other.fileOf(now, l.node), armor.ErrDenied, "another cluster"},
		"a node of a CA that is not the peers": {l.fileOf(now, other.node), armor.ErrDenied, "verify peer certificate"},
	} {
		if _, err := verify(c.file, l.ca); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := verify(good, l.ca); err != nil {
		t.Error("the good one:", err)
	}
}

// A node of the cluster may sign what it likes; the state must still be what the manifest says.
func TestAManifestThatIsNotTheStatesIsRefused(t *testing.T) {
	l := newLab(t, "Acme")
	older := l.machine.Snapshot()
	l.apply("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "prod"}})
	for what, change := range map[string]func(m *saved.Manifest){
		"revision": func(m *saved.Manifest) { m.Revision++ },
		"cluster":  func(m *saved.Manifest) { m.Cluster.ID = strings.Repeat("0", 32) },
		"log time": func(m *saved.Manifest) { m.Time = m.Time.Add(time.Hour) },
		"history":  func(m *saved.Manifest) { m.Chain[0] ^= 1 },
		"digest":   func(m *saved.Manifest) { m.State[0] ^= 1 },
		"counts":   func(m *saved.Manifest) { m.Rows = m.Rows[1:] },
	} {
		var b bytes.Buffer
		o := origin
		o.At = time.Now()
		if err := saved.WriteFalse(&b, older, o, l.node, change); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(b.Bytes(), l.ca); !errors.Is(err, armor.ErrInvalid) || !strings.Contains(err.Error(), "manifest says "+what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A node's key is pinned: its certificate may end before it saves, and before anybody looks.
func TestACertificateThatHasEndedStillVouches(t *testing.T) {
	l := newLab(t, "Acme")
	o := origin
	o.At = time.Now().Add(365 * 24 * time.Hour)
	if _, err := verify(l.fileOf(o, l.node), l.ca); err != nil {
		t.Error(err)
	}
}

func TestASignerWhomTheStateRevokesIsRefused(t *testing.T) {
	l := newLab(t, "Acme")
	bob := l.signer(pki.Operator, "bob")
	l.apply("ada", armor.PutOperator{Operator: armor.Operator{
		Name: "bob", Certificate: l.facts(bob), PublicKey: point(t, bob.Key), Roles: []armor.OperatorRole{armor.Viewer},
	}})
	l.apply("ada", armor.Revoke{Reason: armor.KeyCompromise, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: l.facts(bob).Key}}})
	b := l.file()
	f, err := saved.NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	more, err := f.Sign(bob)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(append(b, more...), l.ca); !errors.Is(err, armor.ErrRevoked) {
		t.Error(err)
	}
}

func TestAStateHoldsNoSecret(t *testing.T) {
	l := newLab(t, "Acme")
	b := l.file()
	if bytes.Contains(b, []byte(token)) || bytes.Contains(b, []byte("PRIVATE KEY")) {
		t.Error("a secret is in the file")
	}
	// What a row could hold of the kind, and why it is none.
	harmless := map[string]string{
		"anchors.Certificate.Key": "of a public key", "inventory.Certificate.Key": "of a public key",
		"members.Certificate.Key":   "of a public key",
		"operators.Certificate.Key": "of a public key", "operators.PublicKey": "is public", "tombstones.FormerKey": "of a public key",
		"revocations.Selector.Key": "of a public key", "staged.Selectors.Key": "of a public key",
		"tokens.Hash":            "SHA-256 of what is long and random",
		"databases.Roles.Secret": "a name; the secret is in the nodes' files",
		"databases.Verifiers":    "where they come from",
	}
	suspicious := regexp.MustCompile(`(?i)secret|password|private|key|token|verifier|credential|hash`)
	for _, table := range armor.Tables() {
		for _, field := range fields(reflect.TypeOf(table.New()).Elem(), table.Name()) {
			if _, known := harmless[field]; suspicious.MatchString(field[strings.IndexByte(field, '.')+1:]) && !known {
				t.Errorf("%s: is it a secret? If not, say why here; if it is, it must not be in a state", field)
			}
			delete(harmless, field)
		}
	}
	if len(harmless) > 0 {
		t.Errorf("no state has %v", harmless)
	}
}

// fields are the paths of all that a row is made of.
func fields(of reflect.Type, path string) (all []string) {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.PkgPath() == "time" || strings.HasPrefix(of.PkgPath(), "net/") {
		return []string{path}
	}
	for i := range of.NumField() {
		all = append(all, fields(of.Field(i).Type, path+"."+of.Field(i).Name)...)
	}
	return all
}

func FuzzFile(f *testing.F) {
	l := newLab(f, "Acme")
	good := l.file()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("ARMRSAVE\x00\x01\xff\xff\xff\xff"))
	f.Add([]byte("ARMRSAVE\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := saved.NewFile(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if _, err := file.Verify(l.ca); err == nil && !bytes.HasPrefix(b, good[:len(good)-200]) {
			t.Error("a file that nobody has saved is verified")
		}
		_, _ = file.Read()
		_, _ = io.Copy(io.Discard, file.Snapshot())
	})
}
