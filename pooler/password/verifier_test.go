package password

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
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

func TestUnfitVerifiersAreRefusedAndNeverRepeated(t *testing.T) {
	good := verifierText(t, "hush", rfcSalt, 4096)
	if _, err := Parse(good); err != nil {
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
		_, err := Parse(text)
		if !errors.Is(err, armor.ErrInvalid) || len(text) > 3 && strings.Contains(err.Error(), text) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifiersStayOutOfLogs(t *testing.T) {
	v, err := Parse(verifierText(t, "hush", rfcSalt, 4096))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "list", []Verifier{v})
	fmt.Fprintf(&out, "%v %+v %s", v, v, v)
	for _, secret := range []string{
		v.stored.Salt, string(v.stored.StoredKey), base64.StdEncoding.EncodeToString(v.stored.StoredKey), fmt.Sprint(v.stored.StoredKey),
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in %q", secret, out.String())
		}
	}
}

func FuzzVerifier(f *testing.F) {
	f.Add(verifierText(f, "pencil", rfcSalt, 4096))
	f.Add("SCRAM-SHA-256$4096:$:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		fit := v.stored.Iters >= minIterations && v.stored.Iters <= maxIterations
		fit = fit && len(v.stored.Salt) >= minSalt && len(v.stored.Salt) <= maxSalt
		if !fit || len(v.stored.StoredKey) != sha256.Size || len(v.stored.ServerKey) != sha256.Size {
			t.Fatalf("%q was taken", text)
		}
	})
}
