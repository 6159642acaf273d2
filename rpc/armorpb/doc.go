// Package armorpb is the API's protobuf, generated from the .proto files beside it.
//
// It knows what a message looks like, and nothing of what is done about it. Nothing but
// package rpc uses it.
//
// Invariant: a field keeps its number and its meaning, because an operator's armorctl and
// the nodes of a cluster need not be of one build.
package armorpb
