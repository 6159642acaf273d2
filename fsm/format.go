package fsm

import (
	"errors"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
)

// The levels of the log and snapshot format that this build reads. A level only ever
// rises: it stands for the set of kinds, fields and meanings, so anything that would
// make an old build compute another state takes a new one.
const (
	MinLevel = 1
	MaxLevel = 9
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

// kind is one line of the table that gives a command its level and its meaning.
type kind struct {
	command armor.Command // zero value: its type
	level   uint32        // the level it came with
	// do gives the command its meaning. Any error is a refusal, and the draft is dropped.
	do func(*draft, armor.Command) error
}

// means makes a line of the table.
func means[C armor.Command](level uint32, do func(*draft, C) error) kind {
	var zero C
	return kind{zero, level, func(d *draft, c armor.Command) error { return do(d, c.(C)) }}
}

var kinds = byName(
	means(1, (*draft).bootstrap),
	// 3: cancel requests.
	means(3, func(d *draft, c armor.PutEnvironment) error { return d.putEnvironment(c.Environment) }),
	// 7: an intermediate whose issuer nobody has shown.
	means(1, func(d *draft, c armor.PutAnchor) error { return d.putAnchor(c.Anchor) }),
	means(1, (*draft).registerCertificate),
	// 7, where time is in the way: an entry of level 7 is not judged by it.
	means(1, (*draft).revoke),
	// 2: time-outs, sizes, several hosts, second factors. 3: templates, reserves, warm-up,
	// replication, cancel requests, queries for verifiers, certificates, MD5. 5: isolation. 6: what a pool keeps
	// of its sessions, lag, and what is said and run at logins. 7: two pools that lead to one
	// role of one database.
	means(7, (*draft).apply),
	means(1, func(d *draft, c armor.PutOperator) error { return d.putOperator(c.Operator) }),
	// 7, where the name is one of a node that was removed.
	means(1, func(d *draft, c armor.CreateJoinToken) error { return d.createJoinToken(c.Token) }),
	means(1, (*draft).requestJoin),
	means(1, (*draft).approveJoin),
	// 7: it revokes the node's key.
	means(7, (*draft).removeMember),
	means(7, (*draft).replaceMember),
	means(1, (*draft).setMemberAddresses),
	means(1, (*draft).setShares),
	means(1, (*draft).buryTombstones),
	means(1, (*draft).pruneExpired),
	means(4, (*draft).stageRevocations),
	means(4, (*draft).revokeStaged),
	means(7, (*draft).mendTime),
	means(7, (*draft).pruneCertificates),
	// 8: of another peer CA, whenever it ends.
	means(7, (*draft).renewMember),
	means(8, (*draft).retireAnchor),
	means(8, (*draft).rescueOperator),
	means(8, (*draft).putPeerCA),
	means(8, (*draft).retirePeerCA),
	means(9, (*draft).startRotation),
	means(9, (*draft).moveRotation),
	means(9, (*draft).recordUses),
)

// LevelOf returns the kind of command in an entry that Check or Encode made, and the level
// of the entry: a build that applies only earlier ones stops at it.
func LevelOf(entry []byte) (kind string, level uint32) {
	var e fsmpb.Envelope
	if err := wire.Log.UnmarshalMessage(entry, &e); err != nil {
		return "", MaxLevel
	}
	return e.Kind, e.Level
}

func byName(all ...kind) map[string]kind {
	table := make(map[string]kind, len(all))
	for _, k := range all {
		table[k.command.Kind()] = k
	}
	return table
}
