package fsm

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
)

// A snapshot is
//
//	"ARMRSNAP", u16 format, then sections:
//	u16 type, u16 flags, u64 length, payload, u32 CRC-32C of all before it in the section
//
// in this order: the header, one section for each table, sections of later builds that
// they marked as optional, the trailer; then the end. A table that came after the first
// level has a section only if it has rows, so that a build that does not know it reads
// what does not use it. Numbers are big-endian. A table's payload is its rows, each with
// its length as a uvarint before it; of a large table it is deflated (RFC 1951). A
// snapshot with such a section is of format 2, and any other of format 1, which the
// builds before read as well.
const (
	snapshotMagic  = "ARMRSNAP"
	plainFormat    = 1
	deflatedFormat = 2

	headerSection  = 1
	trailerSection = 0xffff
	firstTable     = 16

	flagCritical = 1 // a build that does not know the section must not read the snapshot
	flagDeflated = 2 // format 2

	// deflateFrom is how many rows make a table large: the rows of a small one are not
	// worth a snapshot that the builds before cannot read.
	deflateFrom = 10_000

	maxSection  = 1 << 32 // bytes
	maxSections = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type section struct {
	kind    uint16
	flags   uint16
	payload []byte
}

// Snapshot is one published version, to be written whenever there is time for it.
// Taking one copies nothing, and later Applies do not change it.
type Snapshot struct{ version *version }

// Snapshot returns the version in force.
func (m *Machine) Snapshot() Snapshot { return Snapshot{m.current.Load()} }

// Revision is the index of the last entry that the snapshot covers.
func (s Snapshot) Revision() uint64 { return s.version.world.state.Revision }

// State is the state that the snapshot holds.
func (s Snapshot) State() *armor.State { return s.version.world.state }

// Mark is where that state stands.
func (s Snapshot) Mark() armor.Mark { return s.version.mark() }

// WriteTo writes the snapshot (io.WriterTo). It may run beside Apply, which does not wait
// for it. The bytes depend only on the entries applied.
func (s Snapshot) WriteTo(w io.Writer) (int64, error) {
	out := &counter{w: w}
	if err := s.write(out); err != nil {
		return out.n, fmt.Errorf("write snapshot of revision %d: %w", s.Revision(), err)
	}
	return out.n, nil
}

func (s Snapshot) write(w io.Writer) error {
	world := s.version.world
	if _, err := w.Write(binary.BigEndian.AppendUint16([]byte(snapshotMagic), world.format())); err != nil {
		return err
	}
	header := &fsmpb.SnapshotHeader{}
	wire.Log.Fill(header, world.header())
	payload, err := deterministic.Marshal(header)
	if err != nil {
		return err
	}
	if err := writeSection(w, section{headerSection, flagCritical, payload}); err != nil {
		return err
	}
	sections := 1
	for i, t := range tables {
		if i >= firstTables && t.rows(world) == 0 {
			continue
		}
		section, err := world.section(firstTable+uint16(i), t)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name(), err)
		}
		sections++
		if err := writeSection(w, section); err != nil {
			return err
		}
	}
	for _, x := range world.extra {
		if err := writeSection(w, x); err != nil {
			return err
		}
	}
	return s.writeTrailer(w, sections+len(world.extra))
}

// format is the one that a snapshot of the world has.
func (w *world) format() uint16 {
	if slices.ContainsFunc(tables, func(t table) bool { return t.rows(w) >= deflateFrom }) {
		return deflatedFormat
	}
	return plainFormat
}

// section makes the section of a table.
func (w *world) section(kind uint16, t table) (section, error) {
	var payload bytes.Buffer
	if t.rows(w) < deflateFrom {
		err := t.write(w, &payload)
		return section{kind, flagCritical, payload.Bytes()}, err
	}
	deflate, err := flate.NewWriter(&payload, flate.BestSpeed)
	if err != nil {
		return section{}, err
	}
	err = errors.Join(t.write(w, deflate), deflate.Close())
	return section{kind, flagCritical | flagDeflated, payload.Bytes()}, err
}

// inflated returns what a section holds.
func (s section) inflated() ([]byte, error) {
	if s.flags&flagDeflated == 0 {
		return s.payload, nil
	}
	var rows bytes.Buffer
	n, err := io.Copy(&rows, io.LimitReader(flate.NewReader(bytes.NewReader(s.payload)), maxSection+1))
	if err == nil && n > maxSection {
		err = fmt.Errorf("more than %d bytes", int64(maxSection))
	}
	return rows.Bytes(), err
}

func (s Snapshot) writeTrailer(w io.Writer, sections int) error {
	state := s.version.world.hash()
	payload, err := deterministic.Marshal(&fsmpb.SnapshotTrailer{
		Chain: s.version.chain[:], State: state[:], Sections: uint32(sections),
	})
	if err != nil {
		return err
	}
	return writeSection(w, section{trailerSection, flagCritical, payload})
}

func writeSection(w io.Writer, s section) error {
	b := binary.BigEndian.AppendUint16(nil, s.kind)
	b = binary.BigEndian.AppendUint16(b, s.flags)
	b = binary.BigEndian.AppendUint64(b, uint64(len(s.payload)))
	crc := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, s.payload)
	for _, part := range [][]byte{b, s.payload, binary.BigEndian.AppendUint32(nil, crc)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces the machine's state with a snapshot's and publishes it, as Apply
// does: followers see it like any other new state. The new state is built aside and
// its digests are checked first, and it is not one before the state in force; on an error
// nothing has changed.
func (m *Machine) Restore(r io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	old := m.current.Load()
	if is, was := next.world.state.Revision, old.world.state.Revision; is < was {
		return fmt.Errorf("restore snapshot: %w: it is of revision %d, and %d was published", ErrCannotApply, is, was)
	}
	m.publish(old, next)
	return nil
}

// Examine reads a whole snapshot and does nothing with it: it returns where it stands, and
// whose it is.
func Examine(r io.Reader) (armor.Mark, armor.Cluster, error) {
	v, err := readSnapshot(r)
	if err != nil {
		return armor.Mark{}, armor.Cluster{}, fmt.Errorf("examine snapshot: %w", err)
	}
	v.digest = v.world.hash()
	return v.mark(), v.world.state.Cluster, nil
}

func readSnapshot(r io.Reader) (*version, error) {
	start := make([]byte, len(snapshotMagic)+2)
	if _, err := io.ReadFull(r, start); err != nil {
		return nil, fmt.Errorf("read its beginning: %w", err)
	}
	if string(start[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("this is no snapshot of ours")
	}
	if f := binary.BigEndian.Uint16(start[len(snapshotMagic):]); f < plainFormat || f > deflatedFormat {
		return nil, fmt.Errorf("%w: snapshot format %d, and this build reads %d and %d", ErrCannotApply, f, plainFormat, deflatedFormat)
	}
	reader := reader{draft: emptyWorld().edit()}
	for count := range maxSections {
		s, err := readSection(r)
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", count, err)
		}
		if s.kind == trailerSection {
			return reader.close(s, uint32(count), r)
		}
		if err := reader.take(s, count); err != nil {
			return nil, fmt.Errorf("section %d of type %d: %w", count, s.kind, err)
		}
	}
	return nil, fmt.Errorf("more than %d sections", maxSections)
}

func readSection(r io.Reader) (section, error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(r, head); err != nil {
		return section{}, noEOF(err)
	}
	length := binary.BigEndian.Uint64(head[4:])
	if length > maxSection {
		return section{}, fmt.Errorf("%d bytes, more than %d", length, maxSection)
	}
	// The buffer grows with what is read, so a length alone allocates nothing.
	var payload bytes.Buffer
	if _, err := io.CopyN(&payload, r, int64(length)); err != nil {
		return section{}, noEOF(err)
	}
	tail := make([]byte, 4)
	if _, err := io.ReadFull(r, tail); err != nil {
		return section{}, noEOF(err)
	}
	crc := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload.Bytes())
	if crc != binary.BigEndian.Uint32(tail) {
		return section{}, errors.New("the checksum does not hold: the snapshot is damaged")
	}
	return section{binary.BigEndian.Uint16(head), binary.BigEndian.Uint16(head[2:]), payload.Bytes()}, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// reader builds a world from sections.
type reader struct {
	draft *draft
	next  int // the first of the tables that may come now
}

func (r *reader) take(s section, position int) error {
	if (position == 0) != (s.kind == headerSection) {
		return errors.New("the header is not where it belongs")
	}
	if s.kind == headerSection {
		return r.header(s.payload)
	}
	if i := int(s.kind) - firstTable; i >= 0 && i < len(tables) {
		if i != r.next && (i < r.next || r.next < firstTables) || len(r.draft.extra) > 0 {
			return errors.New("the tables are not in order")
		}
		r.next = i + 1
		payload, err := s.inflated()
		if err == nil {
			err = tables[i].read(r.draft, payload)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", tables[i].name(), err)
		}
		return nil
	}
	if s.flags&flagCritical != 0 {
		return fmt.Errorf("%w: this build does not know the section", ErrCannotApply)
	}
	if r.next < firstTables {
		return errors.New("an optional section before the tables")
	}
	r.draft.extra = append(r.draft.extra, s)
	return nil
}

// header is the part of a world that is no table, as it is written.
type header struct {
	Level, MinReaderLevel uint32
	Revision              uint64
	Time                  time.Time
	Cluster               armor.Cluster
	NextIndex             uint16
	Configured            uint64
}

func (w *world) header() header {
	s := w.state
	reader := max(w.level, MinLevel)
	if !s.Cluster.Era.IsFirst() || len(s.Cluster.NextPeerCA) > 0 {
		reader = max(reader, eraLevel)
	}
	return header{Level, reader, s.Revision, s.Time, s.Cluster, s.NextIndex, w.configured}
}

func (r *reader) header(payload []byte) error {
	var message fsmpb.SnapshotHeader
	var h header
	if err := wire.Log.UnmarshalMessage(payload, &message); err != nil {
		return err
	}
	if err := wire.Log.Read(&h, &message); err != nil {
		return err
	}
	if h.MinReaderLevel > MaxLevel || h.Level < MinLevel {
		return fmt.Errorf("%w: snapshot of level %d, to be read by %d or later, and this build reads %d to %d",
			ErrCannotApply, h.Level, h.MinReaderLevel, MinLevel, MaxLevel)
	}
	d := r.draft
	d.Revision, d.Time, d.Cluster, d.NextIndex, d.configured = h.Revision, h.Time, h.Cluster, h.NextIndex, h.Configured
	d.latest, d.Changed = h.MinReaderLevel, armor.Everything(h.Revision)
	return nil
}

// close checks what was built against the trailer, and that nothing comes after it.
func (r *reader) close(s section, count uint32, rest io.Reader) (*version, error) {
	var trailer fsmpb.SnapshotTrailer
	if err := wire.Log.UnmarshalMessage(s.payload, &trailer); err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	if trailer.Sections != count || r.next < firstTables || len(trailer.Chain) != len(armor.Digest{}) {
		return nil, fmt.Errorf("%d sections, and the trailer says %d: the snapshot is damaged", count, trailer.Sections)
	}
	if n, err := io.ReadFull(rest, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes follow the trailer")
	}
	w := r.draft.finish()
	if state := w.hash(); !bytes.Equal(trailer.State, state[:]) {
		return nil, fmt.Errorf("the state has digest %s, and the trailer says %x", state, trailer.State)
	}
	return &version{world: w, chain: armor.Digest(trailer.Chain)}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
