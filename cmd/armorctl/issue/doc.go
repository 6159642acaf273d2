// Package issue makes certificates: CAs in folders, and the certificates of clients,
// operators and nodes that they sign.
//
// It asks nobody anything and shows nothing: a passphrase comes from whoever opens a CA, and
// a client's certificate is registered with the cluster through Cluster.
//
// Invariant: a client's files are written only after its certificate was registered, so
// that none looks usable which the cluster does not know.
package issue
