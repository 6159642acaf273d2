package saved

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

// A file is
//
//	"ARMRSAVE", u16 format, u32 length, the manifest (fsmpb.Manifest),
//	the snapshot, of the length that the manifest says,
//	then to its end, for each signature: u32 length, fsmpb.Signature.
//
// Numbers are big-endian. The signatures come last, so that whoever receives a file can
// check it first and then add theirs.
const (
	magic  = "ARMRSAVE"
	format = 1

	headLength    = len(magic) + 2 + 4
	maxSignature  = 80 << 10 // bytes, with its certificates
	maxSignatures = 16
)

// Write writes a snapshot as a file that the node that saved it has signed. The snapshot is
// made twice: its digest stands before it.
func Write(w io.Writer, s fsm.Snapshot, o Origin, by Signer) error {
	m := about(s, o)
	digest := sha256.New()
	n, err := s.WriteTo(digest)
	if err != nil {
		return err
	}
	m.Length, m.Digest = uint64(n), armor.Digest(digest.Sum(nil))
	manifest, err := m.marshal()
	if err != nil {
		return err
	}
	signature, err := by.sign(manifest)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint16([]byte(magic), format)
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(head, uint32(len(manifest))), manifest...)); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if _, err := s.WriteTo(w); err != nil {
		return err
	}
	if _, err := w.Write(signature); err != nil {
		return fmt.Errorf("write the signature: %w", err)
	}
	return nil
}

// File is a file that was opened. Nothing in it is proven before Verify.
type File struct {
	Manifest Manifest

	source     io.ReaderAt
	close      func() error
	manifest   []byte // as it stands there, and was signed
	signatures []Signature
}

// Open opens the file at a path. Close ends it.
func Open(path string) (*File, error) {
	about, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no file %s", armor.ErrNotFound, path)
	}
	if err == nil && !about.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no regular file", armor.ErrInvalid, path)
	}
	if err != nil {
		return nil, err
	}
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := NewFile(opened, about.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), opened.Close())
	}
	f.close = opened.Close
	return f, nil
}

// NewFile reads the manifest and the signatures of a file of the given size.
func NewFile(source io.ReaderAt, size int64) (*File, error) {
	f := &File{source: source, close: func() error { return nil }}
	if err := f.readManifest(); err != nil {
		return nil, err
	}
	end := f.begins()
	if left := size - end; left < 0 || f.Manifest.Length > uint64(left) {
		return nil, fmt.Errorf("%w: the file is cut short: it has %d bytes, and the manifest says that %d follow it",
			armor.ErrInvalid, size, f.Manifest.Length)
	}
	end += int64(f.Manifest.Length)
	if err := f.readSignatures(io.NewSectionReader(source, end, size-end)); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes what Open opened.
func (f *File) Close() error { return f.close() }

// begins is where the snapshot does.
func (f *File) begins() int64 { return int64(headLength + len(f.manifest)) }

// Snapshot is the machine's snapshot in the file, for fsm.Machine.Restore.
func (f *File) Snapshot() io.Reader {
	return io.NewSectionReader(f.source, f.begins(), int64(f.Manifest.Length))
}

// Signatures are those under the manifest, of whoever they are.
func (f *File) Signatures() []Signature { return f.signatures }

func (f *File) readManifest() error {
	head := make([]byte, headLength)
	if _, err := f.source.ReadAt(head, 0); err != nil || string(head[:len(magic)]) != magic {
		return fmt.Errorf("%w: this is no saved state of ours", armor.ErrInvalid)
	}
	if n := binary.BigEndian.Uint16(head[len(magic):]); n != format {
		return fmt.Errorf("%w: a saved state of format %d, and this build reads %d: use a newer one", armor.ErrInvalid, n, format)
	}
	length := binary.BigEndian.Uint32(head[len(magic)+2:])
	if length == 0 || length > maxManifest {
		return fmt.Errorf("%w: a manifest of %d bytes, and the most is %d", armor.ErrInvalid, length, maxManifest)
	}
	f.manifest = make([]byte, length)
	if _, err := f.source.ReadAt(f.manifest, int64(headLength)); err != nil {
		return fmt.Errorf("%w: the file is cut short in its manifest", armor.ErrInvalid)
	}
	var err error
	f.Manifest, err = readManifest(f.manifest)
	return err
}

func (f *File) readSignatures(r io.Reader) error {
	for {
		var length uint32
		err := binary.Read(r, binary.BigEndian, &length)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: the file is cut short in its signatures, or bytes follow them", armor.ErrInvalid)
		case length > maxSignature || len(f.signatures) == maxSignatures:
			return fmt.Errorf("%w: more than %d signatures, or one of more than %d bytes", armor.ErrInvalid, maxSignatures, maxSignature)
		}
		var b bytes.Buffer
		if _, err := io.CopyN(&b, r, int64(length)); err != nil {
			return fmt.Errorf("%w: the file is cut short in its signatures, or bytes follow them", armor.ErrInvalid)
		}
		s, err := readSignature(b.Bytes())
		if err != nil {
			return err
		}
		f.signatures = append(f.signatures, s)
	}
}
