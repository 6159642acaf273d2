package pooler

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// verifierText makes what pg_authid would hold (RFC 5802 §3).
func verifierText(t testing.TB, password, salt string, iterations int) string {
	t.Helper()
	rawSalt, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		t.Fatal(err)
	}
	salted, err := pbkdf2.Key(sha256.New, password, rawSalt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	keyed := func(what string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(what))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, salt, encode(stored[:]), encode(keyed("Server Key")))
}

// The example of RFC 7677 §3.
const (
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcClientFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcServerFirst = "r=rOprNGfwEbeRWgbNEkqO" + rfcServerNonce + ",s=" + rfcSalt + ",i=4096"
	rfcClientFinal = "c=biws,r=rOprNGfwEbeRWgbNEkqO" + rfcServerNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func TestExampleOfRFC7677(t *testing.T) {
	v, err := parseVerifier(verifierText(t, "pencil", rfcSalt, 4096))
	if err != nil {
		t.Fatal(err)
	}
	server, err := newScramServer(v)
	if err != nil {
		t.Fatal(err)
	}
	conversation := server.WithNonceGenerator(func() string { return rfcServerNonce }).NewConversation()
	if got, err := conversation.Step(rfcClientFirst); got != rfcServerFirst || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := conversation.Step(rfcClientFinal); got != rfcServerFinal || err != nil || !conversation.Valid() {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUnfitVerifiersAreRefusedAndNeverRepeated(t *testing.T) {
	good := verifierText(t, "hush", rfcSalt, 4096)
	if _, err := parseVerifier(good); err != nil {
		t.Fatal(err)
	}
	key := strings.Split(good, "$")[2]
	for name, text := range map[string]string{
		"empty":                "",
		"a clear password":     "hush",
		"MD5":                  "md50123456789abcdef0123456789abcdef",
		"another scheme":       "SCRAM-SHA-512" + strings.TrimPrefix(good, "SCRAM-SHA-256"),
		"no keys":              good[:strings.LastIndex(good, "$")],
		"one key":              good[:strings.LastIndex(good, ":")],
		"a short key":          good[:len(good)-4],
		"more behind it":       good + "$",
		"too few iterations":   "SCRAM-SHA-256$4095:" + rfcSalt + "$" + key,
		"too many iterations":  "SCRAM-SHA-256$1000001:" + rfcSalt + "$" + key,
		"no iterations at all": "SCRAM-SHA-256$:" + rfcSalt + "$" + key,
		"no salt":              "SCRAM-SHA-256$4096:$" + key,
		"a short salt":         "SCRAM-SHA-256$4096:AAAA$" + key,
		"a long salt":          "SCRAM-SHA-256$4096:" + strings.Repeat("AAAA", 22) + "$" + key,
		"a salt that is none":  "SCRAM-SHA-256$4096:!!!!$" + key,
	} {
		_, err := parseVerifier(text)
		if !errors.Is(err, armor.ErrInvalid) || len(text) > 3 && strings.Contains(err.Error(), text) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifiersStayOutOfLogs(t *testing.T) {
	v, err := parseVerifier(verifierText(t, "hush", rfcSalt, 4096))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "list", []verifier{v})
	fmt.Fprintf(&out, "%v %+v %s", v, v, v)
	for _, secret := range []string{v.Salt, string(v.StoredKey), base64.StdEncoding.EncodeToString(v.StoredKey), fmt.Sprint(v.StoredKey)} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in %q", secret, out.String())
		}
	}
}

func FuzzVerifier(f *testing.F) {
	f.Add(verifierText(f, "pencil", rfcSalt, 4096))
	f.Add("SCRAM-SHA-256$4096:$:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVerifier(text)
		if err == nil && (v.Iters < minIterations || v.Iters > maxIterations || len(v.Salt) < minSalt || len(v.Salt) > maxSalt || len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size) {
			t.Fatalf("%q was taken", text)
		}
	})
}

// FuzzExchange: whatever a client sends, nothing panics, nothing beyond its two
// messages is read, and without the password nothing is proved.
func FuzzExchange(f *testing.F) {
	message := func(body string) []byte {
		return append([]byte{'p', 0, 0, 0, byte(len(body) + 4)}, body...)
	}
	first := message("SCRAM-SHA-256\x00\x00\x00\x00" + string(rune(len(rfcClientFirst))) + rfcClientFirst)
	f.Add(first, true)
	f.Add(append(first, message(rfcClientFinal)...), true)
	f.Add(message("SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x21p=tls-server-end-point,,n=,r=abcde"), true)
	f.Add([]byte("\x00\x00\x00\x08\x00\x03\x00\x00"), false)
	v, err := parseVerifier(verifierText(f, "pencil", rfcSalt, 4096))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sent []byte, bound bool) {
		conn := &script{Reader: bytes.NewReader(sent)}
		x := &exchange{conn: conn, verifier: v, known: true, role: "app"}
		if bound {
			x.binding = make([]byte, 32)
		}
		if err := x.run(&request{role: "app"}); err == nil {
			t.Fatalf("proved by %q", sent)
		}
		if read := len(sent) - conn.Len(); read > 2*(pgwire.HeaderSize+pgwire.MaxSASL) {
			t.Fatalf("read %d bytes", read)
		}
	})
}

// script is a connection that a client's bytes come from.
type script struct {
	*bytes.Reader
	net.Conn
}

func (s *script) Read(b []byte) (int, error)    { return s.Reader.Read(b) }
func (s *script) Write(b []byte) (int, error)   { return io.Discard.Write(b) }
func (s *script) SetDeadline(_ time.Time) error { return nil }

func TestGuessesArePaidOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(1)
		thief := guesser{netip.MustParseAddr("192.0.2.1"), "spiffe://a/b"}
		tried := 0
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for g.allow(thief) {
				g.failed(thief)
				tried++
			}
		}
		if tried < 600 || tried > 610 {
			t.Errorf("%d guesses in 10 minutes", tried)
		}
		for range 500 { // begun at once, while it was allowed
			g.failed(thief)
		}
		for _, other := range []guesser{{netip.MustParseAddr("192.0.2.2"), thief.identity}, {thief.source, "spiffe://a/c"}} {
			if !g.allow(other) {
				t.Errorf("%v pays for another's guesses", other)
			}
		}
		time.Sleep(50 * time.Second)
		if g.allow(thief) {
			t.Error("500 guesses were paid off in 50 s")
		}
		time.Sleep(2 * time.Second)
		if !g.allow(thief) {
			t.Error("nobody waits for longer than a minute")
		}
	})
}

func TestGuessersAreForgottenOnceTheyOweNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses(1)
		source := netip.MustParseAddr("192.0.2.1")
		for n := range maxGuessers {
			g.failed(guesser{source, armor.Identity(fmt.Sprint(n))})
		}
		if g.allow(guesser{source, "new"}) || !g.allow(guesser{source, "0"}) {
			t.Error("the bound on memory does not hold, or holds those who are known")
		}
		time.Sleep(2 * time.Second)
		if !g.allow(guesser{source, "new"}) || len(g.owed) != 0 {
			t.Errorf("%d are remembered who owe nothing", len(g.owed))
		}
	})
}
