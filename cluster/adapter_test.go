package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

func TestSnapshotHeadersOfOthersAreRefused(t *testing.T) {
	encode := func(h snapshotHeader) io.Reader {
		var b bytes.Buffer
		binary.Write(&b, binary.BigEndian, h)
		return &b
	}
	good := snapshotHeader{snapshotMagic, int64(time.Minute)}
	if h, err := readSnapshotHeader(encode(good)); err != nil || h != good {
		t.Fatalf("%v, %v", h, err)
	}
	for i, bad := range []snapshotHeader{
		{[8]byte{'P', 'G', 'D', 'M', 'P'}, int64(time.Minute)},
		{snapshotMagic, -1},
		{snapshotMagic, int64(maxLongest) + 1},
	} {
		if _, err := readSnapshotHeader(encode(bad)); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := readSnapshotHeader(bytes.NewReader([]byte("ARM"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}
