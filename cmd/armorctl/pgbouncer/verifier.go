package pgbouncer

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
)

// Verifier is what a client's password is checked by.
type Verifier struct {
	Role string
	Text string // as in pg_authid.rolpassword
}

// String keeps the verifier out of texts: passwords can be guessed with it.
func (v Verifier) String() string { return "verifier of " + v.Role }

// PostgreSQL's own numbers, and the least that nodes take.
const (
	iterations = 4096
	saltSize   = 16
)

// verify has a user's password checked by SCRAM, if there is anything to check it by.
func (t *translation) verify(name string) {
	u, listed := t.listedUser(name)
	if s := t.userSection(name); !listed && s != nil {
		u.place = s.place
	}
	instead := fmt.Sprintf("write the role's verifier into the secret %s on every node (docs/operate.md), "+
		"or take secondFactor from the grant", VerifiersName)
	switch {
	case !listed || u.secret == "":
		t.report.note(u.place, "userlist."+name, "", outcome{why: "there is no password to check the user's by", instead: instead})
	case u.isMD5():
		t.report.note(u.place, "userlist."+name, "",
			outcome{why: "passwords are checked by SCRAM, for which an MD5 hash is of no use", instead: instead})
	case u.isVerifier():
		if _, rest, _ := strings.Cut(u.secret, "$"); weak(rest) {
			t.report.note(u.place, "userlist."+name, "", outcome{why: fmt.Sprintf("the verifier has less than %d iterations, or is none",
				iterations), instead: "set the role's password again in PostgreSQL and take the new verifier"})
			return
		}
		t.verifiers[name] = Verifier{name, u.secret}
	default:
		text, err := verifierOf(u.secret)
		if err != nil {
			t.report.note(u.place, "userlist."+name, "", outcome{why: "the password cannot be prepared for SCRAM", instead: instead})
			return
		}
		t.verifiers[name] = Verifier{name, text}
	}
}

func weak(factors string) bool {
	text, _, _ := strings.Cut(factors, ":")
	n, err := strconv.Atoi(text)
	return err != nil || n < iterations
}

// verifierOf makes a verifier of a password, as PostgreSQL does.
func verifierOf(password string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return "", fmt.Errorf("%w: the password holds characters that SASLprep forbids", armor.ErrInvalid)
	}
	keys, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return "", err
	}
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, iterations, encode(salt), encode(keys.StoredKey), encode(keys.ServerKey)), nil
}
