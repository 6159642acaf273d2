// Package pki turns X.509 into Armor's words and back: facts out of certificates,
// the profile that a client's leaf must fit, the chain check of the edge, and the
// issuing that armorctl does with keys that operators hold.
//
// It knows nothing of connections, of revocations or of who may do what, and it
// keeps no key: crypto.Signer values pass through it.
//
// Invariant: nothing that this package issues would be refused by its own checks.
package pki
