package pooler

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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

// verifier is what the password of a role is checked by, as in pg_authid.rolpassword.
// It is a secret: with it, passwords can be guessed without asking anybody.
type verifier struct{ scram.StoredCredentials }

// LogValue and String keep it out of logs and error texts.
func (verifier) LogValue() slog.Value { return slog.StringValue("[verifier]") }
func (verifier) String() string       { return "[verifier]" }

// parseVerifier reads SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey. Its errors
// repeat nothing of the text.
func parseVerifier(text string) (verifier, error) {
	scheme, rest, _ := strings.Cut(text, "$")
	factors, keys, ok := strings.Cut(rest, "$")
	if scheme != verifierScheme || !ok {
		return verifier{}, fmt.Errorf("%w: it is no %s verifier as in pg_authid.rolpassword", armor.ErrInvalid, verifierScheme)
	}
	iterations, salt, _ := strings.Cut(factors, ":")
	stored, server, _ := strings.Cut(keys, ":")
	v := verifier{scram.StoredCredentials{}}
	var err error
	if v.Iters, err = strconv.Atoi(iterations); err != nil || v.Iters < minIterations || v.Iters > maxIterations {
		return verifier{}, fmt.Errorf("%w: its iterations are not between %d and %d", armor.ErrInvalid, minIterations, maxIterations)
	}
	rawSalt, saltErr := base64.StdEncoding.DecodeString(salt)
	if saltErr != nil || len(rawSalt) < minSalt || len(rawSalt) > maxSalt {
		return verifier{}, fmt.Errorf("%w: its salt is not of %d to %d bytes in base64", armor.ErrInvalid, minSalt, maxSalt)
	}
	v.Salt = string(rawSalt)
	var storedErr, serverErr error
	v.StoredKey, storedErr = base64.StdEncoding.DecodeString(stored)
	v.ServerKey, serverErr = base64.StdEncoding.DecodeString(server)
	if storedErr != nil || serverErr != nil || len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return verifier{}, fmt.Errorf("%w: its keys are not of %d bytes in base64", armor.ErrInvalid, sha256.Size)
	}
	return v, nil
}

// verifierOf returns the verifier of a role. For a role that has none it returns a
// decoy that no password fits, made in the same time: always the same one, on every
// node, so that no client can tell by it that there is none (PostgreSQL's mock
// authentication).
func (p *Pooler) verifierOf(name armor.SecretName, role string) (v verifier, known bool, err error) {
	all, err := p.cfg.Secrets.Verifiers(name)
	if err != nil {
		return verifier{}, false, fmt.Errorf("verifiers %s: %w", name, err)
	}
	if len(all) == 0 {
		return verifier{}, false, fmt.Errorf("%w: verifiers %s: there are none", armor.ErrInvalid, name)
	}
	text, known := all[role]
	if !known {
		text = all[slices.Min(slices.Collect(maps.Keys(all)))]
	}
	if v, err = parseVerifier(text); err != nil {
		return verifier{}, false, fmt.Errorf("verifiers %s: %w", name, err)
	}
	if decoy := p.decoy(role, v); !known {
		v = decoy
	}
	return v, known, nil
}

// decoy looks like another verifier.
func (p *Pooler) decoy(role string, like verifier) verifier {
	derive := func(what string) []byte {
		mac := hmac.New(sha256.New, p.cfg.DecoyKey)
		mac.Write([]byte("armor decoy " + what + "\x00" + role))
		return mac.Sum(nil)
	}
	salt := append(derive("salt"), derive("more salt")...)
	return verifier{scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt[:len(like.Salt)]), Iters: like.Iters},
		StoredKey:  derive("stored key"), ServerKey: derive("server key"),
	}}
}

// checkVerifiers says what is wrong with a node's file of verifiers.
func (p *Pooler) checkVerifiers(name armor.SecretName) error {
	all, err := p.cfg.Secrets.Verifiers(name)
	if err != nil {
		return err
	}
	for _, role := range slices.Sorted(maps.Keys(all)) {
		if _, err := parseVerifier(all[role]); err != nil {
			return fmt.Errorf("of role %q: %w", role, err)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: there are none", armor.ErrInvalid)
	}
	return nil
}
