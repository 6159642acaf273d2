package core

import (
	"bytes"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// drive feeds bytes as a driver would and checks what every event promises. It
// returns false when the session is over.
func drive(t *testing.T, s *Session, out *Output, b []byte, feed func([]byte, *Output) int) (rest []byte, goesOn bool) {
	for len(b) > 0 {
		n := feed(b, out)
		if n < 0 || n > len(b) {
			t.Fatalf("consumed %d of %d bytes", n, len(b))
		}
		if out.Need != 0 && n != len(b) && out.Need <= len(b)-n && out.Server == Keep && out.Client == GoOn {
			t.Fatalf("has %d bytes and needs %d", len(b)-n, out.Need)
		}
		if (out.Server == Release || out.Server == Discard || out.Server == Retry) && s.Server() != nil {
			t.Fatal("still holds the server connection it gave away")
		}
		if out.Client != GoOn {
			return nil, false
		}
		b = b[n:]
		switch {
		case out.Server == Retry:
			return append(bytes.Clone(out.Again), b...), true
		case out.Server == Ask:
			if s.Ask(out); out.ToServer.Len() == 0 || out.ToClient.Len() > 0 {
				t.Fatal("asks nothing")
			}
		case out.Server != Keep || n == 0:
			return b, true
		}
	}
	return nil, true
}

var onStates = []armor.OnState{armor.ResetState, armor.PinState, armor.RefuseState, armor.KeepState}

// FuzzSession lets a client and a server say what they like, in turns: the first byte
// of each piece is whose it is.
func FuzzSession(f *testing.F) {
	for _, c := range conversations(f) {
		f.Add(string(c.mode), c.client, c.server, c.client)
	}
	f.Add("statement", encodeAll(f, "Q begin ; Q commit", encodeClient),
		encodeAll(f, "C BEGIN ; Z T", encodeServer), encodeAll(f, "Q commit", encodeClient))
	f.Add("transaction", encodeAll(f, "Q copy", encodeClient), encodeAll(f, "G x", encodeServer), encodeAll(f, "d 1 ; c", encodeClient))
	f.Add("session", encodeAll(f, "Q START_REPLICATION 0/1", encodeClient),
		encodeAll(f, "W x ; d w ; C COPY 0 ; Z I", encodeServer), encodeAll(f, "d r ; c", encodeClient))
	f.Add("transaction", encodeAll(f, "P a|b ; B |a ; C S|a ; S", encodeClient),
		encodeAll(f, "E ERROR 22P02 bad ; Z I", encodeServer), encodeAll(f, "B |a ; S", encodeClient))
	f.Add("transaction", encodeAll(f, "Q set x.y to 1 ; Q select f()", encodeClient),
		encodeAll(f, "1 ; 2 ; C DISCARD ALL ; I ; Z I ; C SET ; Z I ; C SELECT 1 ; Z I ; C SET ; D @x.y|1 ; C SELECT 1 ; D @t|f|f|f|f ; C SELECT 1 ; Z I",
			encodeServer), encodeAll(f, "Q reset all", encodeClient))
	f.Fuzz(func(t *testing.T, mode string, first, reply, second []byte) {
		if mode != string(armor.SessionMode) && mode != string(armor.StatementMode) {
			mode = string(armor.TransactionMode)
		}
		params := NewParams(map[string]string{"TimeZone": "UTC"})
		statements := NewStatements(1 << 16)
		s := New(Config{ID: 1, Mode: armor.PoolMode(mode), Params: params, Statements: statements, Owner: "me",
			OnState: onStates[len(first)%len(onStates)], Pins: &room{left: len(second) % 2}})
		var out Output
		if mode == string(armor.SessionMode) {
			s.Granted(NewServer(params, Secret{}), &out)
		}
		rest, goesOn := drive(t, s, &out, first, s.FromClient)
		for turn := 0; goesOn && turn < 4; turn++ {
			if out.Server == Want {
				s.Granted(used(params, turn), &out)
				rest, goesOn = drive(t, s, &out, rest, s.FromClient)
			}
			if goesOn && s.Server() != nil {
				var again []byte
				if again, goesOn = drive(t, s, &out, reply, s.FromServer); out.Server == Retry {
					rest = append(again[:len(again):len(again)], rest...)
				}
			}
			if goesOn && out.Server != Want {
				rest, goesOn = drive(t, s, &out, append(rest, second...), s.FromClient)
			}
		}
		if goesOn {
			s.Cut(&pgwire.Error{Severity: pgwire.SeverityFatal, Code: "28000", Message: "cut"}, &out)
			if out.Client == GoOn {
				t.Fatal("a cut session goes on")
			}
		}
		if len(statements.byKey) != 0 {
			t.Fatalf("%d statements are still referred to", len(statements.byKey))
		}
	})
}

// used is a server connection that somebody else has had, in every other turn.
func used(params *Params, turn int) *Server {
	sv := NewServer(params, Secret{})
	if turn%2 == 1 {
		sv.owner, sv.user = "another", 99
	}
	return sv
}

func FuzzIdle(f *testing.F) {
	f.Add(encodeAll(f, "S a|b ; A x", encodeServer))
	f.Add(encodeAll(f, "E FATAL 57P01 bye", encodeServer))
	f.Fuzz(func(t *testing.T, b []byte) {
		sv := NewServer(NewParams(nil), Secret{})
		if n, _ := sv.FromIdle(b); n < 0 || n > len(b) {
			t.Fatalf("consumed %d of %d", n, len(b))
		}
		if n, _ := sv.FromExchange(b, &Exchange{}); n < 0 || n > len(b) {
			t.Fatalf("consumed %d of %d", n, len(b))
		}
	})
}
