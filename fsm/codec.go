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
	if !wire.IsCommand(r.Command) {
		return nil, refuse(armor.ErrInvalid, "%T is no command of the log", r.Command)
	}
	if r.DryRun {
		return nil, refuse(armor.ErrInvalid, "a dry run of %s is no entry of the log", r.Command.Kind())
	}
	b, _, err := encode(entry{request: r, proposedAt: proposedAt, level: kinds[r.Command.Kind()].level})
	return b, err
}

// entry is a log entry as it is read.
type entry struct {
	request    armor.Request
	proposedAt time.Time
	level      uint32
	// ahead is what was found out before it was its turn, if anything; trustAhead is
	// Machine's.
	ahead      *verified
	trustAhead bool
}

// encode also returns the entry as every machine will read it: what was written is read
// back before anyone else has to.
func encode(e entry) ([]byte, entry, error) {
	b, err := write(e)
	if err != nil {
		return nil, e, err
	}
	read, err := decode(b)
	if err != nil {
		return nil, e, refuse(armor.ErrInvalid, "encode %s: %v", e.request.Command.Kind(), err)
	}
	return b, read, nil
}

func write(e entry) ([]byte, error) {
	r := e.request
	id, err := encodeID(r)
	if err != nil {
		return nil, err
	}
	payload, err := wire.Log.Marshal(r.Command)
	if err != nil {
		return nil, refuse(armor.ErrInvalid, "encode %s: %v", r.Command.Kind(), err)
	}
	b, err := deterministic.Marshal(&fsmpb.Envelope{
		Version: envelopeVersion, Kind: r.Command.Kind(), Level: e.level, RequestId: id, Principal: r.Principal,
		ProposedAt: wire.TimeMessage(e.proposedAt), Expires: wire.TimeMessage(r.Expires), Signature: r.Signature, Payload: payload,
	})
	if err != nil {
		return nil, refuse(armor.ErrInvalid, "encode %s: %v", r.Command.Kind(), err)
	}
	if len(b) > MaxEntry {
		return nil, refuse(armor.ErrInvalid,
			"%s of %d bytes exceeds the %d bytes of a log entry: make several requests of it", r.Command.Kind(), len(b), MaxEntry)
	}
	return b, nil
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
func Decode(b []byte) (armor.Request, time.Time, error) {
	e, err := decode(b)
	if err != nil {
		return armor.Request{}, time.Time{}, fmt.Errorf("%w: %w", ErrCannotApply, err)
	}
	return e.request, e.proposedAt, nil
}

func decode(b []byte) (entry, error) {
	var e fsmpb.Envelope
	if len(b) > MaxEntry {
		return entry{}, fmt.Errorf("%d bytes, more than %d", len(b), MaxEntry)
	}
	if err := wire.Log.UnmarshalMessage(b, &e); err != nil {
		return entry{}, fmt.Errorf("envelope: %w", err)
	}
	if e.Version != envelopeVersion {
		return entry{}, fmt.Errorf("envelope version %d, and this build reads %d: run a newer armord", e.Version, envelopeVersion)
	}
	if e.Level < MinLevel || e.Level > MaxLevel {
		return entry{}, fmt.Errorf("entry of level %d, and this build applies %d to %d: run a newer armord", e.Level, MinLevel, MaxLevel)
	}
	proposedAt, err := wire.Log.TimeOf(e.ProposedAt)
	if err != nil {
		return entry{}, fmt.Errorf("proposed at: %w", err)
	}
	if proposedAt.Before(firstTime) || proposedAt.After(lastTime) {
		return entry{}, fmt.Errorf("proposed at %s, which no clock shows", stamp(proposedAt))
	}
	r, err := requestOf(&e)
	return entry{request: r, proposedAt: proposedAt, level: e.Level}, err
}

func requestOf(e *fsmpb.Envelope) (r armor.Request, err error) {
	if r.Expires, err = wire.Log.TimeOf(e.Expires); err != nil {
		return r, fmt.Errorf("expires: %w", err)
	}
	if len(e.RequestId) != 16 {
		return r, fmt.Errorf("request id of %d bytes", len(e.RequestId))
	}
	r.ID = armor.RequestID(hex.EncodeToString(e.RequestId))
	r.Principal, r.Signature = e.Principal, e.Signature
	if err = checkEnvelope(r); err != nil {
		return r, err
	}
	r.Command, err = wire.Log.UnmarshalCommand(e.Kind, e.Payload)
	return r, err
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
