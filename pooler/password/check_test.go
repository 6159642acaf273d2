package password

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
)

// talker is a client that is no connection: it answers by a function.
type talker struct {
	said   [][]byte
	answer func(asked []byte) ([]byte, error)
}

func (c *talker) Send(b []byte) error {
	c.said = append(c.said, b)
	return nil
}

func (c *talker) Next() ([]byte, error) { return c.answer(c.said[len(c.said)-1]) }

func (c *talker) SetDeadline(time.Time) error { return nil }

// speaks SCRAM with a password.
func speaks(t *testing.T, password string) *talker {
	t.Helper()
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	conversation := client.NewConversation()
	return &talker{answer: func(asked []byte) ([]byte, error) {
		first := binary.BigEndian.Uint32(asked[5:]) == 10
		challenge := ""
		if !first {
			challenge = string(asked[9:])
		}
		response, err := conversation.Step(challenge)
		if err != nil || !first {
			return []byte(response), err
		}
		body := append([]byte("SCRAM-SHA-256\x00"), 0, 0, 0, byte(len(response)))
		return append(body, response...), nil
	}}
}

// shelf is a source that has one answer.
type shelf struct {
	found   Found
	err     error
	doubted int
}

func (s *shelf) Verifier(context.Context) (Found, error) { return s.found, s.err }
func (s *shelf) Doubt()                                  { s.doubted++ }

func pencil(t *testing.T) Verifier {
	t.Helper()
	v, err := Parse(verifierText(t, "pencil", rfcSalt, 4096))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOnlyTheRightPasswordOfARoleThatHasOneProves(t *testing.T) {
	for name, c := range map[string]struct {
		known bool
		try   string
		want  string
	}{
		"right":           {true, "pencil", "ok"},
		"wrong":           {true, "pen", string(armor.ReasonPassword)},
		"right of a like": {false, "pencil", string(armor.ReasonPassword)}, // what the decoy is made to look like
	} {
		checker := New(Config{DecoyKey: []byte("x"), GuessesPerSecond: 1000, Patience: time.Minute})
		from := &shelf{found: Found{pencil(t), c.known}}
		err := checker.Check(t.Context(), Attempt{Role: "app", Client: speaks(t, c.try), Source: from})
		if got := Result(err); got != c.want || (from.doubted == 1) != (got == string(armor.ReasonPassword)) {
			t.Errorf("%s: %s (%v), doubted %d times", name, got, err, from.doubted)
		}
	}
}

func TestPrefaceComesBeforeTheQuestion(t *testing.T) {
	client := speaks(t, "pencil")
	a := Attempt{Client: client, Source: &shelf{found: Found{pencil(t), true}}, Preface: []byte("preface")}
	if err := New(Config{GuessesPerSecond: 1, Patience: time.Minute}).Check(t.Context(), a); err == nil {
		t.Fatal("the talker does not look behind a preface")
	}
	if !strings.HasPrefix(string(client.said[0]), "prefaceR") {
		t.Errorf("%q", client.said[0])
	}
}

// TestWhoHasFailedTooOftenIsNotAsked: nor is the source, so that guesses cost nothing.
func TestWhoHasFailedTooOftenIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := New(Config{GuessesPerSecond: 0.1, Patience: time.Minute}) // one at once
		thief := armor.Peer{Source: netip.MustParseAddrPort("192.0.2.1:1")}
		from := &shelf{found: Found{pencil(t), true}}
		try := func(password string) string {
			return Result(checker.Check(t.Context(), Attempt{Peer: thief, Client: speaks(t, password), Source: from}))
		}
		if got := try("pen"); got != string(armor.ReasonPassword) {
			t.Fatal(got)
		}
		from.err = errors.New("asked")
		if got := try("pencil"); got != string(armor.ReasonLimit) {
			t.Errorf("after a wrong password: %s", got)
		}
		from.err = nil
		time.Sleep(10 * time.Second)
		if got := try("pencil"); got != "ok" {
			t.Errorf("ten seconds later: %s", got)
		}
	})
}

func TestEndOfAnExchangeSaysWhy(t *testing.T) {
	revoked := &armor.Denial{Reason: armor.ReasonRevoked, ID: "x"}
	for name, c := range map[string]struct {
		fails error
		cause error
		want  string
	}{
		"the client is silent": {os.ErrDeadlineExceeded, nil, string(armor.ReasonProtocol)},
		"the client has left":  {io.EOF, nil, "abandoned"},
		"the session is cut":   {os.ErrDeadlineExceeded, revoked, string(armor.ReasonRevoked)},
	} {
		ctx, cut := context.WithCancelCause(t.Context())
		client := &talker{answer: func([]byte) ([]byte, error) {
			if c.cause != nil {
				cut(c.cause)
			}
			return nil, c.fails
		}}
		a := Attempt{Client: client, Source: &shelf{found: Found{pencil(t), true}}}
		err := New(Config{GuessesPerSecond: 1, Patience: time.Minute}).Check(ctx, a)
		if got := Result(err); got != c.want {
			t.Errorf("%s: %s (%v)", name, got, err)
		}
		cut(nil)
	}
}

func TestDecoysAreTheSameOnEveryNodeAndLookLikeTheOthers(t *testing.T) {
	like := pencil(t)
	one, other := decoys("k").of("app", like), decoys("k").of("app", like)
	if one.stored.Salt != other.stored.Salt || one.stored.Iters != like.stored.Iters || len(one.stored.Salt) != len(like.stored.Salt) {
		t.Errorf("%q and %q, like %q", one.stored.Salt, other.stored.Salt, like.stored.Salt)
	}
	for _, third := range []Verifier{decoys("k").of("app2", like), decoys("l").of("app", like), like} {
		if third.stored.Salt == one.stored.Salt {
			t.Errorf("%q twice", one.stored.Salt)
		}
	}
	if got := decoys("k").stand(Found{like, true}, "app"); got.Verifier.stored.Salt != like.stored.Salt {
		t.Error("a decoy stands for a verifier that is known")
	}
}
