package fsm

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"pgregory.net/rapid"
)

func restore(t rapid.TB, m *Machine, s Snapshot) {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(&b); err != nil {
		t.Fatal(err)
	}
}

// furnished returns a lab with something in every table.
func furnished(t rapid.TB) *lab {
	t.Helper()
	l := governed(t, "n2", "n3")
	l.must(l.by("ada", armor.Apply{
		Environments: []armor.Environment{{Name: "dev"}}, Databases: []armor.Database{database("dev", "app", "rw")},
		Pools: []armor.Pool{pool("dev", "app", "app", 10)},
		Identities: []armor.IdentityConfig{{Name: "web", Environment: "dev", ID: "spiffe://dev.acme/web",
			Grants: []armor.Grant{{Database: "app", Roles: []string{"rw"}, Pool: "app"}}}},
	}))
	l.must(l.by("ada", l.anchor("dev-ca", "dev", "spiffe://dev.acme/*")))
	l.must(l.by("ada", armor.RegisterCertificate{Record: armor.CertRecord{
		Certificate: l.leaf("web", "dev-ca", "spiffe://dev.acme/web"), Environment: "dev", Owner: "team",
	}}))
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{{Kind: armor.SelectKey, Key: digest("old")}}}))
	l.must(l.by("ada", armor.RemoveMember{Node: "n3"}))
	l.must(l.by("ada", l.token("n4", time.Hour)))
	l.must(l.by("ada", l.token("n5", time.Hour)))
	l.must(l.node("n1", l.join("n5")))
	l.must(l.by("ada", armor.StageRevocations{Batch: batchID("left"), Part: 1, Selectors: everySelector()}))
	return l
}

func TestSnapshotHoldsEveryTable(t *testing.T) {
	l := rotation(t)
	l.must(l.by("ada", devRotation()))
	l.must(l.node("n1", armor.RecordUses{Uses: []armor.Use{{Anchor: fingerprint("dev-ca"), Identity: "spiffe://dev.acme/web", Seen: l.now}}}))
	w := l.machine.current.Load().world
	for _, table := range tables {
		var rows bytes.Buffer
		if err := table.write(w, &rows); err != nil || rows.Len() == 0 || table.rows(w) == 0 {
			t.Errorf("table %s: %d rows of %d bytes, %v", table.name(), table.rows(w), rows.Len(), err)
		}
	}
	m := New()
	restore(t, m, l.machine.Snapshot())
	sameMachine(t, "restored", l.machine, m)
}

func TestSnapshotIsNotMovedByLaterEntries(t *testing.T) {
	l := governed(t)
	s, want := l.machine.Snapshot(), snapshotBytes(t, l.machine)
	l.must(l.by("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "dev"}}))
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Fatal("the snapshot moved", err)
	}
}

func TestRetriesAreKnownAfterARestore(t *testing.T) {
	l := governed(t)
	r := l.request("ada", armor.PutEnvironment{Environment: armor.Environment{Name: "bad/name"}})
	first := l.apply(r)
	restore(t, l.machine, l.machine.Snapshot())
	again := l.apply(r)
	if !again.Repeated || again.Revision != first.Revision || again.Err == nil ||
		again.Err.Error() != first.Err.Error() || !errors.Is(again.Err, armor.ErrInvalid) {
		t.Fatalf("%+v", again)
	}
}

func TestDamagedSnapshotsAreRefusedAndChangeNothing(t *testing.T) {
	good := snapshotBytes(t, furnished(t).machine)
	l := governed(t)
	before, _ := l.machine.Current()
	refused := func(what string, b []byte) {
		t.Helper()
		if err := l.machine.Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s was restored", what)
		}
		if after, _ := l.machine.Current(); after != before {
			t.Fatalf("%s changed the state", what)
		}
	}
	for i := 0; i < len(good); i += 13 {
		refused("a shorter snapshot", good[:i])
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		refused("a flipped bit", flipped)
	}
	refused("a longer snapshot", append(bytes.Clone(good), 0))
	huge := bytes.Clone(good[:10+12])
	binary.BigEndian.PutUint64(huge[10+4:], 1<<31)
	refused("a length that nothing follows", huge)
}

// sections splits a good snapshot.
func sections(t rapid.TB, b []byte) []section {
	t.Helper()
	r := bytes.NewReader(b[len(snapshotMagic)+2:])
	var all []section
	for r.Len() > 0 {
		s, err := readSection(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func joined(t rapid.TB, all []section) []byte {
	t.Helper()
	b := bytes.NewBuffer(binary.BigEndian.AppendUint16([]byte(snapshotMagic), plainFormat))
	for _, s := range all {
		if err := writeSection(b, s); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestSnapshotWithOneRowLessIsRefused(t *testing.T) {
	all := sections(t, snapshotBytes(t, furnished(t).machine))
	for i, s := range all[1 : len(all)-1] {
		length, size := binary.Uvarint(s.payload)
		missing := append([]section(nil), all...)
		missing[i+1].payload = s.payload[size+int(length):]
		if err := New().Restore(bytes.NewReader(joined(t, missing))); err == nil {
			t.Errorf("table %s with a row less was restored: the checksum holds, the state's digest must not", tables[i].name())
		}
	}
}

func TestLaterSnapshotsAreUnderstoodAsFarAsTheySay(t *testing.T) {
	l := furnished(t)
	all := sections(t, snapshotBytes(t, l.machine))
	trailer := all[len(all)-1]
	later := func(flags uint16, count byte) []byte {
		with := append(append([]section(nil), all[:len(all)-1]...), section{900, flags, []byte("from the future")})
		s := trailer
		s.payload = bytes.Clone(trailer.payload)
		s.payload[len(s.payload)-1] += count // the section count is its last varint
		return joined(t, append(with, s))
	}
	if err := New().Restore(bytes.NewReader(later(flagCritical, 1))); !errors.Is(err, ErrCannotApply) {
		t.Errorf("a critical unknown section: %v", err)
	}
	if err := New().Restore(bytes.NewReader(later(0, 0))); err == nil {
		t.Error("the trailer's count was not looked at")
	}
	m := New()
	b := later(0, 1)
	if err := m.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshotBytes(t, m), b) {
		t.Error("the optional section was not kept for the next snapshot")
	}
}

// noted is a table that came later: its rows are those of notes.
type noted struct{ notes *[]string }

func (noted) name() string { return "notes" }

func (n noted) rows(*world) int { return len(*n.notes) }

func (n noted) write(_ *world, out io.Writer) error {
	for _, note := range *n.notes {
		if _, err := out.Write(appendRow(nil, []byte(note))); err != nil {
			return err
		}
	}
	return nil
}

func (n noted) read(_ *draft, payload []byte) error {
	rows, err := splitRows(payload)
	for _, row := range rows {
		*n.notes = append(*n.notes, string(row))
	}
	return err
}

func TestTableThatCameLaterHasASectionOnlyWhileItHasRows(t *testing.T) {
	before := tables
	t.Cleanup(func() { tables = before })
	plain := snapshotBytes(t, furnished(t).machine)
	first, second := []string{}, []string{"a", "b"}
	tables = append(append([]table(nil), before...), noted{&first}, noted{&second})
	m := New()
	if err := m.Restore(bytes.NewReader(plain)); err != nil {
		t.Fatal("a snapshot without the table is not read:", err)
	}
	all := sections(t, snapshotBytes(t, m))
	if last := all[len(all)-2]; len(all) != len(sections(t, plain))+1 ||
		int(last.kind) != firstTable+len(before)+1 || last.flags != flagCritical {
		t.Fatalf("%d sections, and the last is %d", len(all), last.kind)
	}
	second = nil
	if err := m.Restore(bytes.NewReader(joined(t, all))); err != nil || len(first) != 0 || len(second) != 2 {
		t.Fatal(first, second, err)
	}
	second = nil
	if !bytes.Equal(snapshotBytes(t, m), plain) {
		t.Error("a table without rows shows in the snapshot")
	}
	tables = before
	if err := m.Restore(bytes.NewReader(joined(t, all))); !errors.Is(err, ErrCannotApply) {
		t.Error("a build that does not know the table has read its rows:", err)
	}
	swapped := append([]section(nil), all...)
	swapped[len(all)-2], swapped[len(all)-3] = swapped[len(all)-3], swapped[len(all)-2]
	tables = append(append([]table(nil), before...), noted{&first}, noted{&second})
	if err := m.Restore(bytes.NewReader(joined(t, swapped))); err == nil {
		t.Error("tables out of order were read")
	}
}

func TestSnapshotChecksumIsCastagnoli(t *testing.T) {
	// RFC 3720 §B.4: 32 bytes of zeros.
	if got := crc32.Checksum(make([]byte, 32), castagnoli); got != 0x8a9136aa {
		t.Fatalf("%08x", got)
	}
}

func FuzzRestore(f *testing.F) {
	good := snapshotBytes(f, furnished(f).machine)
	f.Add(good)
	f.Add(snapshotBytes(f, New()))
	f.Add(good[:len(good)/2])
	all := sections(f, good)
	for i := range all {
		f.Add(joined(f, all[:i]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New()
		if err := m.Restore(bytes.NewReader(b)); err != nil {
			if m.LastCommand() != 0 {
				t.Fatal("a refused snapshot changed the state")
			}
			return
		}
		again := New()
		restore(t, again, m.Snapshot())
		sameMachine(t, "restored twice", m, again)
	})
}

// FuzzRestoreRows gets past the checksums, to the rows.
func FuzzRestoreRows(f *testing.F) {
	all := sections(f, snapshotBytes(f, furnished(f).machine))
	for i, s := range all {
		f.Add(byte(i), s.payload)
	}
	f.Fuzz(func(t *testing.T, position byte, payload []byte) {
		changed := append([]section(nil), all...)
		i := int(position) % len(changed)
		changed[i].payload = payload
		_ = New().Restore(bytes.NewReader(joined(t, changed)))
	})
}

func TestALargeTableIsDeflated(t *testing.T) {
	l := governed(t)
	loadRevocations(l, deflateFrom-1)
	if b := snapshotBytes(t, l.machine); binary.BigEndian.Uint16(b[len(snapshotMagic):]) != plainFormat {
		t.Error("a table that is not large made a snapshot that the builds before cannot read")
	}
	plain := len(snapshotBytes(t, l.machine))
	l.must(l.by("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{numbered(-1)}}))
	good := snapshotBytes(t, l.machine)
	if binary.BigEndian.Uint16(good[len(snapshotMagic):]) != deflatedFormat || len(good) > plain*2/3 {
		t.Errorf("%d bytes of the same rows became %d", plain, len(good))
	}
	restored := New()
	if err := restored.Restore(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	sameMachine(t, "restored", l.machine, restored)
	for i := len(snapshotMagic) + 2; i < len(good); i += 9973 {
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		if err := New().Restore(bytes.NewReader(flipped)); err == nil {
			t.Fatalf("a snapshot with a bit flipped at %d was restored", i)
		}
	}
}

// A small section that unfolds into more than memory holds is refused before it has.
func TestASectionThatUnfoldsWithoutEndIsRefused(t *testing.T) {
	all := sections(t, snapshotBytes(t, governed(t).machine))
	var bomb bytes.Buffer
	deflate, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := deflate.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	deflate.Close()
	all[1].flags, all[1].payload = flagCritical|flagDeflated, bomb.Bytes()
	if err := New().Restore(bytes.NewReader(joined(t, all))); err == nil {
		t.Error("64 MiB of nothing were taken for rows")
	}
}
