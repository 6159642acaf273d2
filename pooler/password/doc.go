// Package password has a client prove the password of its role, as a second factor
// beside its certificate: by SCRAM-SHA-256 (RFC 5802, RFC 7677), against a verifier as
// PostgreSQL stores them.
//
// It knows no pools and no certificates: it is told who tries (Attempt), talks to them
// through a Client, and asks a Source for what the password is checked by.
//
// Invariant: nothing but the password proves anything, and a role that has none looks
// like one whose password is wrong.
package password
