package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestClientHeaderHoldsToPostgreSQLsBounds(t *testing.T) {
	for _, test := range []struct {
		kind   byte
		length uint32
		ok     bool
	}{
		{Query, 4, true}, {Query, 3, false}, {Query, 0, false}, {Query, 1 << 31, false}, {Query, 0xffffffff, false},
		{Query, MaxMessage + 4, true}, {Query, MaxMessage + 5, false},
		{Sync, 4, true}, {Sync, 5, false}, {Describe, 10004, true}, {Describe, 10005, false},
		{'z', 4, false}, {0, 4, false}, {ReadyForQuery, 5, false},
	} {
		b := binary.BigEndian.AppendUint32([]byte{test.kind}, test.length)
		h, err := ClientHeader(b)
		if (err == nil) != test.ok {
			t.Errorf("%q with length %d: %v", test.kind, test.length, err)
		}
		if err == nil && h.Size() != int(test.length)+1 {
			t.Errorf("%q with length %d has size %d", test.kind, test.length, h.Size())
		}
	}
}

func TestStartup(t *testing.T) {
	packet := func(version uint32, rest string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, version), rest...)
	}
	s, err := ParseStartup(packet(3<<16|2, "user\x00a\x00_pq_.x\x00y\x00user\x00b\x00database\x00\x00\x00"))
	if err != nil || s.Minor != 2 || s.Get("user") != "b" || len(s.Options) != 1 || s.Options[0] != "_pq_.x" {
		t.Errorf("%+v, %v", s, err)
	}
	for name, bad := range map[string][]byte{
		"too short":       packet(3<<16, ""),
		"no terminator":   packet(3<<16, "user\x00a\x00"),
		"value missing":   packet(3<<16, "user\x00"),
		"behind the end":  packet(3<<16, "user\x00a\x00\x00more"),
		"protocol 2":      packet(2<<16, "user\x00a\x00\x00"),
		"nested SSL":      packet(1234<<16|5679, "\x00"),
		"longer than all": packet(3<<16, strings.Repeat("a\x00b\x00", MaxStartup)+"\x00"),
	} {
		if _, err := ParseStartup(bad); !errors.Is(err, armor.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorSurvives(t *testing.T) {
	e := Error{Severity: SeverityFatal, Code: "28000", Message: "no", Detail: "why", Hint: "what to do"}
	if got := ParseError(AppendError(nil, &e)[HeaderSize:]); got != e {
		t.Errorf("%+v", got)
	}
	if got := ParseError([]byte("SERROR\x00Vcut off")); got.Severity != "ERROR" {
		t.Errorf("%+v", got)
	}
}

func TestTheVersionSpokenIsOneThatThereIs(t *testing.T) {
	for minor, want := range map[int]struct {
		spoken     int
		negotiated bool
	}{0: {0, false}, 1: {0, false}, 2: {2, false}, 3: {2, true}, 9999: {2, true}, 0xffff: {2, true}} {
		s := Startup{Minor: minor}
		if s.Spoken() != want.spoken || s.Negotiated() != want.negotiated || s.LongKeys() != (want.spoken == 2) {
			t.Errorf("3.%d is spoken as 3.%d, negotiated: %t", minor, s.Spoken(), s.Negotiated())
		}
	}
	if s := (Startup{Options: []string{"_pq_.test_protocol_negotiation"}}); !s.Negotiated() {
		t.Error("an unknown option is passed over in silence")
	}
}

func TestBackendKeyDataIsAsLongAsItsKey(t *testing.T) {
	short := AppendBackendKeyData(nil, armor.CancelKey{PID: 1, Secret: 2})
	if want := "K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02"; string(short) != want {
		t.Errorf("%q", short)
	}
	key := armor.CancelKey{PID: 1, Long: armor.LongSecret{31: 7}}
	long := AppendBackendKeyData(nil, key)
	if got, ok := armor.ParseCancelKey(long[HeaderSize:]); !ok || got != key || long[4] != 4+4+32 {
		t.Errorf("%+v from %q", got, long)
	}
}

func TestCancelRequestSurvives(t *testing.T) {
	packet := AppendCancelRequest(nil, 1<<31+1, 77)[4:]
	key, err := ParseCancel(packet)
	if err != nil || !IsCancel(packet) || key != (armor.CancelKey{PID: 1<<31 + 1, Secret: 77}) {
		t.Errorf("%+v, %v", key, err)
	}
	long := append(packet[:8:8], bytes.Repeat([]byte{9}, 32)...)
	if key, err := ParseCancel(long); err != nil || !key.IsLong() || key.PID != 1<<31+1 || key.Secret != 0 {
		t.Errorf("%+v, %v", key, err)
	}
	for _, bad := range [][]byte{packet[:8], packet[:11], long[:39], append(long, 0), make([]byte, 12)} {
		if _, err := ParseCancel(bad); err == nil {
			t.Errorf("a cancel request of %d bytes was taken", len(bad))
		}
	}
}

func TestNegotiate(t *testing.T) {
	got := AppendNegotiate(nil, 2, []string{"_pq_.a"})
	want := "v\x00\x00\x00\x13\x00\x03\x00\x02\x00\x00\x00\x01_pq_.a\x00"
	if string(got) != want {
		t.Errorf("%q", got)
	}
}

func TestComposedMessagesAreWellFormed(t *testing.T) {
	tail := []byte("select 1\x00\x00\x01\x00\x00\x00\x17")
	name, rest, err := ParseFields(AppendParse(nil, "x", tail)[HeaderSize:])
	if err != nil || string(name) != "x" || !bytes.Equal(rest, tail) || string(ParseText(rest)) != "select 1" {
		t.Errorf("%q %q %v", name, rest, err)
	}
	head := AppendBindHead(nil, []byte("p"), "x", 3)
	if h, err := ClientHeader(head); err != nil || h.Size() != len(head)+3 {
		t.Errorf("%+v, %v", h, err)
	}
	prepared, name, err := TargetFields(Close, AppendCloseStatement(nil, "x")[HeaderSize:])
	if !prepared || string(name) != "x" || err != nil {
		t.Errorf("%v %q %v", prepared, name, err)
	}
	if got := AppendResized([]byte{1}, AppendQuery(nil, "abc")); string(got) != "\x01Q\x00\x00\x00\x08abc\x00" {
		t.Errorf("%q", got)
	}
}

// FuzzReaders: no reader panics or reads past its argument, whatever it is given.
func FuzzReaders(f *testing.F) {
	f.Add([]byte("x\x00select 1\x00\x00\x00"))
	f.Add(AppendError(nil, &Error{Severity: "ERROR", Code: "1"}))
	f.Add([]byte("\x00\x03\x00\x00user\x00a\x00\x00"))
	f.Add([]byte("\x00\x03\x27\x0f_pq_.test_protocol_negotiation\x00\x00user\x00a\x00\x00"))
	f.Add(append(AppendCancelRequest(nil, 1, 2)[4:], make([]byte, 28)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= HeaderSize {
			if h, err := ClientHeader(b); err == nil && (h.Body < 0 || h.Body > MaxMessage) {
				t.Fatalf("%+v", h)
			}
			if h, err := ServerHeader(b); err == nil && h.Body < 0 {
				t.Fatalf("%+v", h)
			}
		}
		if name, tail, err := ParseFields(b); err == nil && len(name)+1+len(tail) != len(b) {
			t.Fatal("a part of Parse was lost")
		}
		if portal, statement, tail, ok, err := BindFields(b, true); err == nil && (!ok || len(portal)+len(statement)+2+len(tail) != len(b)) {
			t.Fatal("a part of Bind was lost")
		}
		TargetFields(Close, b)
		ExecutePortal(b)
		QueryText(b)
		StatusFields(b)
		CompleteTag(b)
		ReadyStatus(b)
		ParseError(b)
		if key, err := ParseCancel(b); err == nil && key.IsLong() && !bytes.Equal(key.Append(nil), b[4:]) {
			t.Fatal("a part of a cancel key was lost")
		}
		if s, err := ParseStartup(b); err == nil && (len(s.Parameters)+len(s.Options) > len(b) || s.Spoken() > s.Minor) {
			t.Fatal("more than was asked for")
		}
	})
}
