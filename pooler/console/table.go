package console

import (
	"encoding/binary"
	"strconv"

	"github.com/armordb/armordb/pooler/pgwire"
)

// column is a column of an answer, with one of the types that PgBouncer uses.
type column struct {
	name string
	kind columnKind
}

type columnKind uint8

const (
	textColumn columnKind = iota
	int4Column
	int8Column
	numericColumn
)

// The types' OIDs and sizes in pg_type.
var columnTypes = map[columnKind]pgwire.Field{
	textColumn:    {OID: 25, Size: -1},
	int4Column:    {OID: 23, Size: 4},
	int8Column:    {OID: 20, Size: 8},
	numericColumn: {OID: 1700, Size: -1},
}

// columns makes columns from their names and as many letters of their types: s, i, q
// and N, as in PgBouncer's own tables.
func columns(types string, names ...string) []column {
	kinds := map[rune]columnKind{'s': textColumn, 'i': int4Column, 'q': int8Column, 'N': numericColumn}
	if len(types) != len(names) {
		panic("console: " + strconv.Itoa(len(types)) + " types for " + strconv.Itoa(len(names)) + " columns")
	}
	all := make([]column, len(names))
	for i, t := range types {
		all[i] = column{names[i], kinds[t]}
	}
	return all
}

// row holds a value for each column: a string, an int, or nil for NULL.
type row []any

// formatOf returns the format of the i-th column (PostgreSQL, "Bind": none means text,
// one is for all).
func formatOf(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return pgwire.FormatText
	case 1:
		return formats[0]
	}
	return formats[i]
}

func describe(cols []column, formats []int16) []pgwire.Field {
	fields := make([]pgwire.Field, len(cols))
	for i, c := range cols {
		fields[i] = columnTypes[c.kind]
		fields[i].Name, fields[i].Format = c.name, formatOf(formats, i)
	}
	return fields
}

// encodeRow makes the values of a DataRow.
func encodeRow(cols []column, r row, formats []int16) [][]byte {
	values := make([][]byte, len(cols))
	for i, c := range cols {
		values[i] = encodeValue(c.kind, r[i], formatOf(formats, i))
	}
	return values
}

// maxInt4 is where values of int4 columns end: a larger one is shown as this.
const maxInt4 = 1<<31 - 1

func encodeValue(kind columnKind, v any, format int16) []byte {
	switch v := v.(type) {
	case string:
		return append([]byte{}, v...)
	case int:
		if kind == int4Column {
			v = min(v, maxInt4)
		}
		if format == pgwire.FormatText {
			return strconv.AppendInt(nil, int64(v), 10)
		}
		return encodeBinary(kind, v)
	}
	return nil
}

func encodeBinary(kind columnKind, v int) []byte {
	switch kind {
	case int4Column:
		return binary.BigEndian.AppendUint32(nil, uint32(v))
	case int8Column:
		return binary.BigEndian.AppendUint64(nil, uint64(v))
	case numericColumn:
		return encodeNumeric(v)
	}
	return strconv.AppendInt(nil, int64(v), 10)
}

// encodeNumeric is numeric's binary form: digits to the base 10000, the weight of the
// first, no sign (values here are never negative) and no fraction.
func encodeNumeric(v int) []byte {
	var digits []uint16
	for ; v > 0; v /= 10000 {
		digits = append([]uint16{uint16(v % 10000)}, digits...)
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(digits)))
	b = binary.BigEndian.AppendUint16(b, uint16(max(len(digits)-1, 0)))
	b = append(b, 0, 0, 0, 0) // sign, scale
	for _, d := range digits {
		b = binary.BigEndian.AppendUint16(b, d)
	}
	return b
}
