// Package armorpb is the API's protobuf, generated from the .proto files beside it.
// Nothing but package rpc uses it.
package armorpb
