package pgwire

import (
	"bytes"
	"testing"

	"github.com/jackc/pgproto3/v2"
)

// TestRowsAreReadByPgproto3: another implementation reads what we write.
func TestRowsAreReadByPgproto3(t *testing.T) {
	b := AppendRowDescription(nil, []Field{{Name: "n", OID: 23, Size: 4, Format: 1}, {Name: "s", OID: 25, Size: -1}})
	b = AppendDataRow(b, [][]byte{{0, 0, 0, 7}, nil})
	for _, appended := range []func([]byte) []byte{AppendBindComplete,
		AppendNoData, AppendEmptyQuery, AppendPortalSuspended, AppendNoParameters} {
		b = appended(b)
	}
	front := pgproto3.NewFrontend(pgproto3.NewChunkReader(bytes.NewReader(b)), nil)
	var got []pgproto3.BackendMessage
	for range 7 {
		m, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			if f := m.Fields; len(f) != 2 || string(f[0].Name) != "n" || f[0].DataTypeOID != 23 ||
				f[0].DataTypeSize != 4 || f[0].Format != 1 || f[1].DataTypeSize != -1 {
				t.Errorf("%+v", f)
			}
		case *pgproto3.DataRow:
			if v := m.Values; len(v) != 2 || !bytes.Equal(v[0], []byte{0, 0, 0, 7}) || v[1] != nil {
				t.Errorf("%v", v)
			}
		}
		got = append(got, m)
	}
	if _, ok := got[6].(*pgproto3.ParameterDescription); !ok {
		t.Errorf("the last is a %T", got[6])
	}
}

func TestBindTail(t *testing.T) {
	tail := func(m *pgproto3.Bind) []byte {
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, tail, _, err := BindFields(b[HeaderSize:], true)
		if err != nil {
			t.Fatal(err)
		}
		return tail
	}
	whole := tail(&pgproto3.Bind{ParameterFormatCodes: []int16{0}, Parameters: [][]byte{[]byte("abc"), nil}, ResultFormatCodes: []int16{1, 0}})
	n, formats, err := BindTail(whole)
	if err != nil || n != 2 || len(formats) != 2 || formats[0] != 1 {
		t.Errorf("got %d, %v, %v", n, formats, err)
	}
	for cut := range whole {
		if _, _, err := BindTail(whole[:cut]); err == nil {
			t.Errorf("%d of %d bytes were accepted", cut, len(whole))
		}
	}
	if _, _, err := BindTail(append(whole, 0)); err == nil {
		t.Error("a byte more was accepted")
	}
}

func FuzzBindTail(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, formats, err := BindTail(b); err == nil && 4*n+2*len(formats) > len(b) {
			t.Fatalf("%d parameters and %d formats out of %d bytes", n, len(formats), len(b))
		}
		if _, rows, err := ExecuteFields(b); err == nil && rows < 0 {
			t.Fatal(rows)
		}
	})
}

func FuzzRowFields(f *testing.F) {
	f.Add(AppendDataRow(nil, [][]byte{[]byte("app"), nil, {}})[HeaderSize:])
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xfe})
	f.Add([]byte{0, 2, 0, 0, 0, 9, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := RowFields(b)
		if err != nil {
			return
		}
		if again := AppendDataRow(nil, values)[HeaderSize:]; string(again) != string(b) {
			t.Fatalf("%q reads as %q", b, values)
		}
	})
}

func TestRowFieldsTellNullFromNothing(t *testing.T) {
	values, err := RowFields(AppendDataRow(nil, [][]byte{[]byte("app"), nil, {}})[HeaderSize:])
	if err != nil || len(values) != 3 || string(values[0]) != "app" || values[1] != nil || values[2] == nil || len(values[2]) != 0 {
		t.Errorf("%q, %v", values, err)
	}
}

func TestQueryWithAParameterIsThreeMessagesAndASync(t *testing.T) {
	b := AppendQueryWith(nil, "SELECT $1", "app")
	want := "P\x00\x00\x00\x15\x00SELECT $1\x00\x00\x01\x00\x00\x00\x19" +
		"B\x00\x00\x00\x13\x00\x00\x00\x00\x00\x01\x00\x00\x00\x03app\x00\x00" + "E\x00\x00\x00\x09\x00\x00\x00\x00\x00" + "S\x00\x00\x00\x04"
	if string(b) != want {
		t.Errorf("got  %q\nwant %q", b, want)
	}
}
