package core

import (
	"testing"

	"github.com/armordb/armordb/armor"
)

// conversation is one query as a driver sees it, over and over.
type conversation struct {
	name           string
	mode           armor.PoolMode
	client, server []byte
}

func conversations(t testing.TB) []conversation {
	encode := func(line string, f func(byte, string) []byte) []byte { return encodeAll(t, line, f) }
	return []conversation{
		{"simple", armor.TransactionMode, encode("Q select abalance from pgbench_accounts where aid = 1;", encodeClient),
			encode("T x ; D 1 ; C SELECT 1 ; Z I", encodeServer)},
		{"extended", armor.TransactionMode, encode("P |select abalance from pgbench_accounts where aid = $1 ; B | ; D P| ; E  ; S",
			encodeClient), encode("1 ; 2 ; T x ; D 1 ; C SELECT 1 ; Z I", encodeServer)},
		{"prepared", armor.TransactionMode, encode("B |mine ; D P| ; E  ; S", encodeClient),
			encode("2 ; T x ; D 1 ; C SELECT 1 ; Z I", encodeServer)},
		{"session", armor.SessionMode, encode("B |mine ; D P| ; E  ; S", encodeClient), encode("2 ; T x ; D 1 ; C SELECT 1 ; Z I", encodeServer)},
	}
}

// start returns a session that has prepared "mine", and its server connection.
func (c conversation) start(t testing.TB) (*Session, *Server, *Output) {
	params := NewParams(map[string]string{"TimeZone": "UTC", "client_encoding": "UTF8"})
	s := New(Config{ID: 1, Mode: c.mode, OnState: armor.KeepState, Params: params, Statements: NewStatements(1 << 20)})
	sv := NewServer(params, Secret{})
	out := &Output{}
	s.Granted(sv, out)
	s.FromClient(encodeAll(t, "P mine|select $1 ; S", encodeClient), out)
	s.FromServer(encodeAll(t, "1 ; Z I", encodeServer), out)
	return s, sv, out
}

// once plays the conversation and reports whether it went as it should.
func (c conversation) once(s *Session, sv *Server, out *Output) bool {
	n := 0
	if s.Server() == nil {
		n = s.FromClient(c.client, out)
		if out.Server != Want {
			return false
		}
		s.Granted(sv, out)
	}
	n += s.FromClient(c.client[n:], out)
	if n != len(c.client) || out.ToServer.Len() == 0 {
		return false
	}
	n = s.FromServer(c.server, out)
	return n == len(c.server) && out.ToClient.Len() == len(c.server) && (out.Server == Release) == (c.mode == armor.TransactionMode)
}

func TestQueriesAllocateNothing(t *testing.T) {
	for _, c := range conversations(t) {
		t.Run(c.name, func(t *testing.T) {
			s, sv, out := c.start(t)
			for range 10 { // buffers grow to their size
				if !c.once(s, sv, out) {
					t.Fatalf("the conversation went wrong: %+v", out)
				}
			}
			if n := testing.AllocsPerRun(100, func() { c.once(s, sv, out) }); n != 0 {
				t.Errorf("%v allocations per query", n)
			}
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	for _, c := range conversations(b) {
		b.Run(c.name, func(b *testing.B) {
			s, sv, out := c.start(b)
			b.ReportAllocs()
			for b.Loop() {
				if !c.once(s, sv, out) {
					b.Fatal("the conversation went wrong")
				}
			}
		})
	}
}
