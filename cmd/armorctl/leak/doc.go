// Package leak finds private keys where none belongs: in files, and in all that a git repository
// has ever held.
//
// It knows no cluster and shows nothing: of a key it tells where it lies and the SHA-256 of its
// public half, as revocations name keys.
//
// Invariant: nothing of a private key leaves the package. What it reads is hostile: sizes, nesting,
// and rounds of a password as far as they can be seen, are bounded before anything is decoded.
package leak
