package password

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/armordb/armordb/armor"
)

// What a verifier may be: PostgreSQL makes salts of 16 bytes and, unless told
// otherwise, 4,096 iterations. It is the client that computes them all.
const (
	verifierScheme   = "SCRAM-SHA-256"
	minIterations    = 4096
	maxIterations    = 1_000_000
	minSalt, maxSalt = 8, 64
)

// Verifier is what the password of a role is checked by, as in pg_authid.rolpassword.
// It is a secret: with it, passwords can be guessed without asking anybody.
type Verifier struct{ stored scram.StoredCredentials }

// LogValue keeps it out of logs.
func (Verifier) LogValue() slog.Value { return slog.StringValue("[verifier]") }

// String keeps it out of error texts.
func (Verifier) String() string { return "[verifier]" }

// Parse reads SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey. Its errors
// repeat nothing of the text.
func Parse(text string) (Verifier, error) {
	scheme, rest, _ := strings.Cut(text, "$")
	factors, keys, ok := strings.Cut(rest, "$")
	if scheme != verifierScheme || !ok {
		return Verifier{}, fmt.Errorf("%w: it is no %s verifier as in pg_authid.rolpassword", armor.ErrInvalid, verifierScheme)
	}
	iterations, salt, _ := strings.Cut(factors, ":")
	stored, server, _ := strings.Cut(keys, ":")
	var v Verifier
	var err error
	if v.stored.Iters, err = strconv.Atoi(iterations); err != nil || v.stored.Iters < minIterations || v.stored.Iters > maxIterations {
		return Verifier{}, fmt.Errorf("%w: its iterations are not between %d and %d", armor.ErrInvalid, minIterations, maxIterations)
	}
	rawSalt, saltErr := base64.StdEncoding.DecodeString(salt)
	if saltErr != nil || len(rawSalt) < minSalt || len(rawSalt) > maxSalt {
		return Verifier{}, fmt.Errorf("%w: its salt is not of %d to %d bytes in base64", armor.ErrInvalid, minSalt, maxSalt)
	}
	v.stored.Salt = string(rawSalt)
	var storedErr, serverErr error
	v.stored.StoredKey, storedErr = base64.StdEncoding.DecodeString(stored)
	v.stored.ServerKey, serverErr = base64.StdEncoding.DecodeString(server)
	if storedErr != nil || serverErr != nil || len(v.stored.StoredKey) != sha256.Size || len(v.stored.ServerKey) != sha256.Size {
		return Verifier{}, fmt.Errorf("%w: its keys are not of %d bytes in base64", armor.ErrInvalid, sha256.Size)
	}
	return v, nil
}
