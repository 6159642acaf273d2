package console

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/armordb/armordb/pooler/pgwire"
)

func TestNumbersAreEncodedInBothFormats(t *testing.T) {
	for _, v := range []int{0, 1, 9999, 10000, 123456789, math.MaxInt64} {
		b := encodeValue(numericColumn, v, pgwire.FormatBinary)
		n, weight, got := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:])), uint64(0)
		for i := range n {
			got = got*10000 + uint64(binary.BigEndian.Uint16(b[8+2*i:]))
		}
		if got != uint64(v) || len(b) != 8+2*n || weight != max(n-1, 0) {
			t.Errorf("%d became %v", v, b)
		}
	}
	if got := encodeValue(int4Column, math.MaxInt64, pgwire.FormatText); string(got) != "2147483647" {
		t.Errorf("got %s", got)
	}
	if got := encodeValue(int4Column, math.MaxInt64, pgwire.FormatBinary); binary.BigEndian.Uint32(got) != math.MaxInt32 {
		t.Errorf("got %v", got)
	}
	if got := encodeValue(textColumn, nil, pgwire.FormatText); got != nil {
		t.Errorf("NULL became %q", got)
	}
	if got := encodeValue(textColumn, "", pgwire.FormatText); got == nil {
		t.Error("an empty string became NULL")
	}
}
