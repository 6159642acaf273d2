// Command armorctl is what operators use: it makes certificates, changes what the
// cluster has agreed on, takes access away, and explains refusals.
//
// It knows the cluster only by its API (rpc) and decides nothing that the cluster
// decides; where it explains a decision it runs the same judge, armor.State.Decide.
// Keys of CAs, operators and clients are made and used here and never leave this
// machine.
//
// Invariant: stdout carries the answer and nothing else, in the shape that -o asks
// for; what is said to people goes to stderr.
package main
