package saved

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/armordb/armordb/fsm"
)

// WriteFalse is Write of somebody who holds a signer's key and says what is not true.
func WriteFalse(w io.Writer, s fsm.Snapshot, o Origin, by Signer, change func(*Manifest)) error {
	var b bytes.Buffer
	if err := Write(&b, s, o, by); err != nil {
		return err
	}
	f, err := NewFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		return err
	}
	m := f.Manifest
	change(&m)
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
		return err
	}
	if _, err := s.WriteTo(w); err != nil {
		return err
	}
	_, err = w.Write(signature)
	return err
}
