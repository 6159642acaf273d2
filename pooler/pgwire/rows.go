package pgwire

import "encoding/binary"

// What a server of our own making answers with: the admin console, which no
// PostgreSQL stands behind. Each function appends one whole message to dst and returns
// the result.

// The formats of a column (PostgreSQL, "Formats and Format Codes").
const (
	FormatText   int16 = 0
	FormatBinary int16 = 1
)

// Field is a column of a RowDescription: OID and Size are its type's, as pg_type has
// them.
type Field struct {
	Name   string
	OID    uint32
	Size   int16
	Format int16
}

// AppendRowDescription appends RowDescription.
func AppendRowDescription(dst []byte, fields []Field) []byte {
	size := 2
	for _, f := range fields {
		size += len(f.Name) + 19
	}
	dst = appendHeader(dst, RowDescription, size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(fields)))
	for _, f := range fields {
		dst = appendString(dst, f.Name)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // it belongs to no table
		dst = binary.BigEndian.AppendUint32(dst, f.OID)
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Size))
		dst = append(dst, 0xff, 0xff, 0xff, 0xff) // no type modifier
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Format))
	}
	return dst
}

// AppendDataRow appends DataRow; a nil value is NULL.
func AppendDataRow(dst []byte, values [][]byte) []byte {
	size := 2
	for _, v := range values {
		size += 4 + len(v)
	}
	dst = appendHeader(dst, DataRow, size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return dst
}

// AppendBindComplete appends BindComplete.
func AppendBindComplete(dst []byte) []byte { return appendHeader(dst, BindComplete, 0) }

// AppendNoData appends NoData.
func AppendNoData(dst []byte) []byte { return appendHeader(dst, NoData, 0) }

// AppendEmptyQuery appends EmptyQueryResponse.
func AppendEmptyQuery(dst []byte) []byte { return appendHeader(dst, EmptyQueryResponse, 0) }

// AppendPortalSuspended appends PortalSuspended.
func AppendPortalSuspended(dst []byte) []byte { return appendHeader(dst, PortalSuspended, 0) }

// AppendNoParameters appends a ParameterDescription of a statement without parameters.
func AppendNoParameters(dst []byte) []byte {
	return append(appendHeader(dst, ParameterDescription, 2), 0, 0)
}

// BindTail reads what follows the two names in a Bind: how many parameters it has, and
// the formats that it wants the result's columns in.
func BindTail(tail []byte) (parameters int, formats []int16, err error) {
	_, tail, ok := cutInt16s(tail)
	if !ok || len(tail) < 2 {
		return 0, nil, malformed(Bind)
	}
	parameters, tail = int(binary.BigEndian.Uint16(tail)), tail[2:]
	for range parameters {
		if tail, ok = cutValue(tail); !ok {
			return 0, nil, malformed(Bind)
		}
	}
	formats, tail, ok = cutInt16s(tail)
	if !ok || len(tail) != 0 {
		return 0, nil, malformed(Bind)
	}
	return parameters, formats, nil
}

// ExecuteFields splits the body of an Execute message; rows is the most that are
// wanted, 0 for all.
func ExecuteFields(body []byte) (portal []byte, rows int, err error) {
	if portal, err = ExecutePortal(body); err != nil {
		return nil, 0, err
	}
	return portal, max(0, int(int32(binary.BigEndian.Uint32(body[len(body)-4:])))), nil
}

// cutInt16s reads a count and as many 16-bit numbers from the beginning of b.
func cutInt16s(b []byte) (numbers []int16, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < 2*n {
		return nil, nil, false
	}
	for i := range n {
		numbers = append(numbers, int16(binary.BigEndian.Uint16(b[2*i:])))
	}
	return numbers, b[2*n:], true
}

// cutValue takes a length and as many bytes off the beginning of b; a length of -1 is
// NULL.
func cutValue(b []byte) (rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(b)))
	if b = b[4:]; n < -1 || n > len(b) {
		return nil, false
	}
	return b[max(n, 0):], true
}

// DescriptionFields returns of a RowDescription what a client decodes rows by: the columns'
// names, types and type modifiers, and not which table they are of. Of any other message, and of
// one that makes no sense, it returns all.
func DescriptionFields(message []byte) []byte {
	const behindName = 18 // bytes: table, number, type, size, modifier, format
	if message[0] != RowDescription || len(message) < HeaderSize+2 {
		return message
	}
	var fields []byte
	for rest := message[HeaderSize+2:]; len(rest) > 0; {
		name, more, ok := cutString(rest)
		if !ok || len(more) < behindName {
			return message
		}
		fields = append(append(append(fields, name...), 0), more[6:behindName-2]...)
		rest = more[behindName:]
	}
	return fields
}
