package fsm

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// The golden files are what builds of a level wrote. Each later build reads them as
// that build did, so a file is made once, for a new level, and never rewritten:
//
//	commands-L.txt   each command with every field set: kind, digest of what it says, entry
//	log-L-NAME.txt   a whole log: the entries, then the digests that they lead to
//	snapshot-L.bin   a snapshot with every field of every row set
const golden = "testdata/golden"

// goldenFiles returns the files of a sort. Those of this level are made by -update if
// they are not there yet, which is once in a level's life.
func goldenFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(golden, pattern))
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	return files
}

func keepGolden(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(golden, name)
	if _, err := os.Stat(path); err == nil {
		return
	}
	if err := os.MkdirAll(golden, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func goldenLines(t *testing.T, file string) (lines [][]string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(content))
	scanner.Buffer(nil, 4*MaxEntry)
	for scanner.Scan() {
		lines = append(lines, strings.Fields(scanner.Text()))
	}
	return lines
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fullRequest is a request with every field set, the same one for a kind in each run.
func fullRequest(t *testing.T, k kind) armor.Request {
	t.Helper()
	seed := 0
	command := reflect.New(reflect.TypeOf(k.command)).Elem()
	fill(t, command, &seed)
	return armor.Request{
		ID: "00112233445566778899aabbccddeeff", Principal: "ada", Signature: []byte("signature"),
		Expires: epoch.Add(time.Minute + 7), Command: command.Interface().(armor.Command),
	}
}

func makeCommands(t *testing.T) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		r := fullRequest(t, kinds[name])
		entry, err := Encode(r, epoch.Add(3))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %x\n", name, r.SigningDigest(clusterID), entry)
	}
	return b.Bytes()
}

func TestEveryCommandOfEveryLevelIsReadAsItWasWritten(t *testing.T) {
	if *update {
		keepGolden(t, fmt.Sprintf("commands-%d.txt", Level), makeCommands(t))
	}
	for _, file := range goldenFiles(t, "commands-*.txt") {
		for _, line := range goldenLines(t, file) {
			r, proposedAt, err := Decode(fromHex(t, line[2]))
			if err != nil {
				t.Errorf("%s: %s: %v", file, line[0], err)
				continue
			}
			if r.Command.Kind() != line[0] || r.SigningDigest(clusterID).String() != line[1] || !proposedAt.Equal(epoch.Add(3)) {
				t.Errorf("%s: %s is read as another command: %+v", file, line[0], r)
			}
		}
	}
}

// What this build writes is, to the byte, what the first build of the level wrote.
func TestCommandsAreWrittenAsEver(t *testing.T) {
	file := filepath.Join(golden, fmt.Sprintf("commands-%d.txt", Level))
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := makeCommands(t); !bytes.Equal(got, want) {
		t.Error(firstDifference(string(got), string(want)))
	}
}

func makeLog(l *lab) []byte {
	var b bytes.Buffer
	for i, entry := range l.entries {
		fmt.Fprintf(&b, "%d %d %x\n", i+1, l.term, entry)
	}
	mark := l.machine.Mark()
	fmt.Fprintf(&b, "leads to %d %s %s\n", mark.Revision, mark.Chain, mark.State)
	return b.Bytes()
}

// everyCommand is a log in which each kind of command is accepted at least once.
func everyCommand(t *testing.T) *lab {
	l := furnished(t)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "staging", Cancel: armor.CancelTLSOnly}}))
	l.must(l.by("ada", armor.PutOperator{Operator: l.operator("bob", armor.Revoker)}))
	l.must(l.node("n2", armor.SetMemberAddresses{Node: "n2", PeerAddress: "n2:8432", ClientAddress: "n2:6432", OpsAddress: "n2:9432"}))
	l.must(l.by("ada", l.renewal("n2", time.Hour)))
	l.must(l.node("n1", armor.SetShares{Pool: armor.ObjectKey("dev", "app"), Shares: []armor.Share{
		{Pool: armor.ObjectKey("dev", "app"), Node: "n1", Target: 3, Granted: 4},
	}}))
	l.must(l.node("n1", armor.BuryTombstones{Nodes: []armor.NodeID{"n3"}}))
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("all"), Part: 1, Selectors: everySelector()[:1]}))
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("all"), Part: 2, Selectors: everySelector()[1:]}))
	l.must(l.by("ada", armor.RevokeStaged{
		Batch: batchID("all"), Parts: 2, Digest: armor.StagingDigest(everySelector()), Reason: armor.Superseded, Comment: "all",
	}))
	isolated := pool("dev", "apart", "app", 3)
	isolated.Isolation = armor.IsolatedClients
	l.must(l.by("ada", armor.Apply{Pools: []armor.Pool{isolated}}))
	keeping := pool("dev", "keeping", "app", 3)
	keeping.OnState, keeping.KeepSettings, keeping.MaxPinned = armor.KeepState, []string{"app.tenant"}, armor.NoPins
	keeping.ConnectQuery, keeping.LoginNotifyMessage, keeping.MaxPreparedStatements = "SELECT 1", "hello", 7
	l.must(l.by("ada", armor.Apply{Pools: []armor.Pool{keeping}}))
	l.must(l.by("ada", l.brief("short", time.Hour)))
	l.rotated()
	l.must(l.by("ada", armor.RetireAnchor{Anchor: l.anchor("dev-ca", "dev", "spiffe://dev.acme/*").Anchor.Certificate.Fingerprint}))
	l.now = l.now.Add(2 * time.Hour)
	l.must(l.node("n1", armor.PruneExpired{At: l.now}))
	l.now = l.now.Add(armor.KeptAfterEnd)
	l.must(l.by("ada", armor.PruneCertificates{EndedBefore: l.now.Add(-armor.KeptAfterEnd)}))
	l.poisoned(24*time.Hour, func() {
		l.must(l.by("ada", l.token("n9", time.Hour)))
		l.must(l.by("ada", armor.StageRevocations{Batch: batchID("late"), Part: 1, Selectors: everySelector()[:1]}))
	})
	l.must(l.by("ada", armor.Revoke{Selectors: everySelector()[1:2], Reason: armor.Superseded}))
	l.must(l.by("ada", armor.MendTime{From: l.state().Time}))
	return l
}

// rotated leads environment dev from one CA to another and back half-way, and leads staging all the way.
func (l *lab) rotated() {
	l.must(l.by("ada", l.anchor("next-ca", "dev", "spiffe://dev.acme/*")))
	start := devRotation()
	start.Watch, start.Spared = time.Minute, []armor.Pattern{"spiffe://dev.acme/*"}
	l.must(l.by("ada", start))
	l.must(l.node("n1", armor.RecordUses{Uses: []armor.Use{
		{Anchor: start.Old, Identity: "spiffe://dev.acme/web", Seen: l.now}, {Anchor: start.New, Identity: "spiffe://dev.acme/web", Seen: l.now},
	}}))
	for _, phase := range []armor.RotationPhase{armor.RotationIssuing, armor.RotationTaint, armor.RotationShadow, armor.RotationStandby} {
		l.must(l.by("ada", l.to(phase)))
	}
	for _, name := range []string{"staging-ca", "staging-ca-2"} {
		l.must(l.by("ada", l.anchor(name, "staging", "spiffe://staging.acme/*")))
	}
	l.must(l.by("ada", armor.StartRotation{
		Environment: "staging", Old: fingerprint("staging-ca"), New: fingerprint("staging-ca-2"), Compromised: true, Drill: true,
	}))
	r, _ := l.state().Rotations.Get("staging")
	l.must(l.by("ada", armor.MoveRotation{Environment: "staging", Revision: r.Revision, To: armor.RotationStandby, Force: true}))
}

func TestEveryLogLeadsToTheStateThatItLedTo(t *testing.T) {
	if *update {
		keepGolden(t, fmt.Sprintf("log-%d-every-command.txt", Level), makeLog(everyCommand(t)))
	}
	for _, file := range goldenFiles(t, "log-*.txt") {
		m := New()
		for _, line := range goldenLines(t, file) {
			if line[0] == "leads" {
				mark := m.Mark()
				if got := fmt.Sprintf("%d %s %s", mark.Revision, mark.Chain, mark.State); got != strings.Join(line[2:], " ") {
					t.Errorf("%s leads to %s, and led to %s", file, got, line[2:])
				}
				continue
			}
			var index, term uint64
			if _, err := fmt.Sscan(line[0], &index); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(line[1], &term); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Apply(index, term, fromHex(t, line[2])); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
}

// fullWorld has two rows in every table, with every field set, and a revocation of every
// kind.
func fullWorld(t *testing.T) *world {
	t.Helper()
	seed := 0
	d := emptyWorld().edit()
	d.Revision, d.Time, d.NextIndex, d.configured = 77, epoch, 7, 76
	fill(t, reflect.ValueOf(&d.Cluster).Elem(), &seed)
	for _, table := range armor.Tables() {
		add, done := table.Fill(d.State)
		keep := func(row armor.Row) {
			v := reflect.ValueOf(row).Elem().Interface()
			if !add(row) {
				t.Fatalf("table %s has two rows %s", table.Name(), row.Key())
			}
			d.entries.add(entryHash(table.Name(), row.Key(), v))
		}
		for range 2 {
			row := table.New()
			fill(t, reflect.ValueOf(row).Elem(), &seed)
			keep(row)
		}
		if _, revocations := table.New().(*armor.Revocation); revocations {
			for _, s := range everySelector() {
				keep(&armor.Revocation{Selector: s, Reason: armor.Superseded, Comment: "old", At: epoch, By: "ada", Revision: 5})
			}
		}
		done()
	}
	for code := range uint32(2) {
		var o outcome
		fill(t, reflect.ValueOf(&o).Elem(), &seed)
		o.Code = code
		d.remember(o)
	}
	return d.finish()
}

func everySelector() []armor.Selector {
	return []armor.Selector{
		{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: digest("ca"), Serial: "a1"}},
		{Kind: armor.SelectKey, Key: digest("key")},
		{Kind: armor.SelectIssuer, Issuer: digest("ca")},
		{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/web"},
		{Kind: armor.SelectIdentity, Identity: "spiffe://dev.acme/api/*", IssuedBefore: epoch.Add(-time.Hour)},
	}
}

func TestEverySnapshotOpensAndIsWrittenAsEver(t *testing.T) {
	if *update {
		m := New()
		m.current.Store(&version{world: fullWorld(t), chain: digest("chain"), superseded: make(chan struct{})})
		keepGolden(t, fmt.Sprintf("snapshot-%d.bin", Level), snapshotBytes(t, m))
	}
	for _, file := range goldenFiles(t, "snapshot-*.bin") {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := New()
		if err := m.Restore(bytes.NewReader(want)); err != nil { // holds the state's digest against the trailer's
			t.Errorf("%s: %v", file, err)
			continue
		}
		if file == filepath.Join(golden, fmt.Sprintf("snapshot-%d.bin", Level)) && !bytes.Equal(snapshotBytes(t, m), want) {
			t.Errorf("%s: what this build writes differs from what it has read", file)
		}
	}
}
