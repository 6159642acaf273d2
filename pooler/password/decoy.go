package password

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/xdg-go/scram"
)

// decoys makes the verifiers of roles that have none. No password fits them. They are
// always the same, on every node, so that no client can tell that there is none
// (PostgreSQL calls it mock authentication). It is the key they are made of.
type decoys []byte

// stand puts a decoy in the place of what is not known. It takes the same time for
// roles that are.
func (key decoys) stand(found Found, role string) Found {
	if decoy := key.of(role, found.Verifier); !found.Known {
		found.Verifier = decoy
	}
	return found
}

// of returns the decoy of a role, which looks like another verifier.
func (key decoys) of(role string, like Verifier) Verifier {
	derive := func(what string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("armor decoy " + what + "\x00" + role))
		return mac.Sum(nil)
	}
	salt := append(derive("salt"), derive("more salt")...)
	return Verifier{scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt[:len(like.stored.Salt)]), Iters: like.stored.Iters},
		StoredKey:  derive("stored key"), ServerKey: derive("server key"),
	}}
}

// ordinary is what PostgreSQL makes of a password, for decoys to look like.
var ordinary = Verifier{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: "sixteen bytes of", Iters: minIterations}}}
