package fsm

import (
	"errors"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
)

// The levels of the log and snapshot format that this build reads. A level only ever
// rises: it stands for the set of kinds, fields and meanings, so anything that would
// make an old build compute another state takes a new one.
const (
	MinLevel = 1
	MaxLevel = 3
)

// Level is what this build writes.
const Level = MaxLevel

// MaxEntry bounds a log entry, in bytes.
const MaxEntry = 1 << 20

// envelopeVersion is the version of the envelope itself; no kind or level can change
// how an envelope is read.
const envelopeVersion = 1

// ErrCannotApply is why Apply stops a node: this build does not understand an entry
// or a snapshot that the cluster has agreed on, and to skip it would be to diverge.
var ErrCannotApply = errors.New("this build cannot apply what the cluster has agreed on")

// kind is one line of the table that ties a command to its encoding.
type kind struct {
	command armor.Command // zero value: its type
	message proto.Message // its payload
	level   uint32        // the level it came with
}

var kinds = byName([]kind{
	{armor.Bootstrap{}, &fsmpb.Bootstrap{}, 1},
	{armor.PutEnvironment{}, &fsmpb.PutEnvironment{}, 3}, // 3: cancel requests,
	{armor.PutAnchor{}, &fsmpb.PutAnchor{}, 1},
	{armor.RegisterCertificate{}, &fsmpb.RegisterCertificate{}, 1},
	{armor.Revoke{}, &fsmpb.Revoke{}, 1},
	// 2: time-outs, sizes, several hosts, second factors. 3: templates, reserves, warm-up,
	// replication, cancel requests, queries for verifiers, certificates, MD5.
	{armor.Apply{}, &fsmpb.Apply{}, 3},
	{armor.PutOperator{}, &fsmpb.PutOperator{}, 1},
	{armor.CreateJoinToken{}, &fsmpb.CreateJoinToken{}, 1},
	{armor.RequestJoin{}, &fsmpb.RequestJoin{}, 1},
	{armor.ApproveJoin{}, &fsmpb.ApproveJoin{}, 1},
	{armor.RemoveMember{}, &fsmpb.RemoveMember{}, 1},
	{armor.SetMemberAddresses{}, &fsmpb.SetMemberAddresses{}, 1},
	{armor.SetShares{}, &fsmpb.SetShares{}, 1},
	{armor.BuryTombstones{}, &fsmpb.BuryTombstones{}, 1},
	{armor.PruneExpired{}, &fsmpb.PruneExpired{}, 1},
})

func byName(all []kind) map[string]kind {
	table := make(map[string]kind, len(all))
	for _, k := range all {
		table[k.command.Kind()] = k
	}
	return table
}
