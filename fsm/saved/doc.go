// Package saved is a cluster's state in a file: a snapshot of the machine, a manifest that
// says what it is of and who saved it when, and the signatures under the manifest.
//
// It refuses to know where files come from and what becomes of them, and asks no cluster:
// a file is judged by a peer CA certificate and by what is in it. A state holds no private
// keys and no passwords, so that a file is as confidential as what an operator may read.
//
// Invariant: what Verify returns is what a member of the cluster, at that revision, has signed.
package saved
