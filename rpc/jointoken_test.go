package rpc

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestJoinTokenHidesItsSecretEverywhereButInText(t *testing.T) {
	token := JoinToken{Cluster: "prod", Node: "n2", Pin: armor.Digest{1}, Secret: [32]byte{2, 3, 4}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token)
	for _, shown := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s", token, token, token, &token), log.String()} {
		if strings.Contains(shown, "2 3 4") || strings.Contains(shown, "0x3") || strings.Contains(shown, strings.Split(token.Text(), ".")[4]) {
			t.Errorf("shows the secret: %s", shown)
		}
	}
	got, err := ParseJoinToken(" " + token.Text() + "\n")
	if err != nil || got != token || got.Hash() != token.Hash() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDamagedJoinTokensAreRefusedWithoutBeingRepeated(t *testing.T) {
	good := JoinToken{Cluster: "prod", Node: "n2", Secret: [32]byte{7}}.Text()
	for _, text := range []string{
		"", "armor-join.v1.", "armor-join.v2" + good[13:], good[:len(good)-2], good + "A", good + ".A", good[:20] + "\n" + good[20:],
		strings.Repeat("A", 2000), JoinToken{Cluster: "", Node: "n2"}.Text(), JoinToken{Cluster: "prod", Node: "N2"}.Text(),
	} {
		_, err := ParseJoinToken(text)
		if !errors.Is(err, armor.ErrInvalid) || len(text) > 40 && strings.Contains(err.Error(), text[len(text)-30:]) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(JoinToken{Cluster: "prod", Node: "n2", Secret: [32]byte{7}}.Text())
	f.Add("armor-join.v1.a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			if token != (JoinToken{}) || !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("%v beside %v", token, err)
			}
			return
		}
		if token.Text() != strings.TrimSpace(text) {
			t.Fatalf("two spellings of one token: %q and %q", text, token.Text())
		}
	})
}
