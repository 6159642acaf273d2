package fsm

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/fsm/fsmpb"
	"google.golang.org/protobuf/proto"
)

const (
	maxPrincipal = 80
	maxSignature = 128 // an ASN.1 ECDSA P-256 signature has at most 72 bytes
)

// The span of log time: nanoseconds since 1970 fit an int64 with room to add windows.
var (
	firstTime = time.Unix(0, 0)
	lastTime  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

var deterministic = proto.MarshalOptions{Deterministic: true}

// Encode makes the log entry that proposes r at the given time. It returns
// armor.ErrInvalid for a request that no machine could read back: a malformed id or
// principal, text that is not UTF-8, or more than MaxEntry bytes.
func Encode(r armor.Request, proposedAt time.Time) ([]byte, error) {
	entry, _, err := encode(r, proposedAt)
	return entry, err
}

// proposal is what a log entry says.
type proposal struct {
	armor.Request
	at    time.Time // when it was proposed
	level uint32    // it means what it meant at this level
	// ahead is what was found out before it was its turn, if anything; trustAhead is
	// Machine's.
	ahead      *verified
	trustAhead bool
}

// encode also returns the proposal as every machine will read it: what was written is
// read back before anyone else has to.
func encode(r armor.Request, proposedAt time.Time) ([]byte, proposal, error) {
	entry, err := write(r, proposedAt)
	if err != nil {
		return nil, proposal{}, err
	}
	p, err := read(entry)
	if err != nil {
		return nil, p, refuse(armor.ErrInvalid, "encode %s: %v", r.Command.Kind(), err)
	}
	return entry, p, nil
}

func write(r armor.Request, proposedAt time.Time) ([]byte, error) {
	if r.DryRun {
		return nil, refuse(armor.ErrInvalid, "a dry run of %s is no entry of the log", r.Command.Kind())
	}
	if !wire.IsCommand(r.Command) {
		return nil, refuse(armor.ErrInvalid, "%T is no command of the log", r.Command)
	}
	id, err := encodeID(r)
	if err != nil {
		return nil, err
	}
	payload, err := wire.Log.Marshal(r.Command)
	if err != nil {
		return nil, refuse(armor.ErrInvalid, "encode %s: %v", r.Command.Kind(), err)
	}
	entry, err := deterministic.Marshal(&fsmpb.Envelope{
		Version: envelopeVersion, Kind: r.Command.Kind(), Level: kinds[r.Command.Kind()].level, RequestId: id, Principal: r.Principal,
		ProposedAt: wire.TimeMessage(proposedAt), Expires: wire.TimeMessage(r.Expires), Signature: r.Signature, Payload: payload,
	})
	if err != nil {
		return nil, refuse(armor.ErrInvalid, "encode %s: %v", r.Command.Kind(), err)
	}
	if len(entry) > MaxEntry {
		return nil, refuse(armor.ErrInvalid,
			"%s of %d bytes exceeds the %d bytes of a log entry: make several requests of it", r.Command.Kind(), len(entry), MaxEntry)
	}
	return entry, nil
}

func encodeID(r armor.Request) ([]byte, error) {
	if _, err := armor.ParseRequestID(string(r.ID)); err != nil {
		return nil, err
	}
	if err := checkEnvelope(r); err != nil {
		return nil, refuse(armor.ErrInvalid, "%v", err)
	}
	return hex.DecodeString(string(r.ID))
}

// Decode reads a log entry. Any error means that this build must not apply it; it
// wraps ErrCannotApply.
func Decode(entry []byte) (armor.Request, time.Time, error) {
	p, err := read(entry)
	return p.Request, p.at, err
}

// read is Decode with all that the entry says.
func read(entry []byte) (proposal, error) {
	p, err := decode(entry)
	if err != nil {
		return proposal{}, fmt.Errorf("%w: %w", ErrCannotApply, err)
	}
	return p, nil
}

func decode(entry []byte) (p proposal, err error) {
	var e fsmpb.Envelope
	if len(entry) > MaxEntry {
		return p, fmt.Errorf("%d bytes, more than %d", len(entry), MaxEntry)
	}
	if err := wire.Log.UnmarshalMessage(entry, &e); err != nil {
		return p, fmt.Errorf("envelope: %w", err)
	}
	if e.Version != envelopeVersion {
		return p, fmt.Errorf("envelope version %d, and this build reads %d: run a newer armord", e.Version, envelopeVersion)
	}
	if e.Level < MinLevel || e.Level > MaxLevel {
		return p, fmt.Errorf("entry of level %d, and this build applies %d to %d: run a newer armord", e.Level, MinLevel, MaxLevel)
	}
	p.level = e.Level
	if p.at, err = wire.Log.TimeOf(e.ProposedAt); err != nil {
		return p, fmt.Errorf("proposed at: %w", err)
	}
	if p.at.Before(firstTime) || p.at.After(lastTime) {
		return p, fmt.Errorf("proposed at %s, which no clock shows", stamp(p.at))
	}
	if p.Expires, err = wire.Log.TimeOf(e.Expires); err != nil {
		return p, fmt.Errorf("expires: %w", err)
	}
	if len(e.RequestId) != 16 {
		return p, fmt.Errorf("request id of %d bytes", len(e.RequestId))
	}
	p.ID = armor.RequestID(hex.EncodeToString(e.RequestId))
	p.Principal, p.Signature = e.Principal, e.Signature
	if err = checkEnvelope(p.Request); err != nil {
		return p, err
	}
	p.Command, err = wire.Log.UnmarshalCommand(e.Kind, e.Payload)
	return p, err
}

func checkEnvelope(r armor.Request) error {
	unprintable := func(c rune) bool { return c <= ' ' || c > '~' }
	if r.Principal == "" || len(r.Principal) > maxPrincipal || strings.ContainsFunc(r.Principal, unprintable) {
		return fmt.Errorf("principal %.100q is not 1 to %d printable ASCII characters", r.Principal, maxPrincipal)
	}
	if len(r.Signature) > maxSignature {
		return fmt.Errorf("signature of %d bytes", len(r.Signature))
	}
	return nil
}
