package pgwire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/armordb/armordb/armor"
)

// MaxStartup bounds a startup packet, its length word included, as PostgreSQL does
// (MAX_STARTUP_PACKET_LENGTH).
const MaxStartup = 10000

// cancelCode stands in a CancelRequest where a startup packet has its protocol
// version.
const cancelCode = 1234<<16 | 5678

// IsCancel reports whether a packet, without its length word, is a CancelRequest.
func IsCancel(packet []byte) bool {
	return len(packet) >= 4 && binary.BigEndian.Uint32(packet) == cancelCode
}

// protocolMajor is the only protocol that there is, newestMinor the newest version of it
// that we speak.
const (
	protocolMajor = 3
	newestMinor   = 2
)

// OptionPrefix marks startup parameters that are protocol options.
const OptionPrefix = "_pq_."

// Startup is what a client asks for: a protocol version, parameters in the order
// they came in, and the names of protocol options, none of which we know.
type Startup struct {
	Minor      int
	Parameters [][2]string
	Options    []string
}

// Spoken is the minor version that is spoken with the client: what it asks for, or the
// newest one that we know before it. There is no 3.1 (PostgreSQL, "Protocol Versions").
func (s Startup) Spoken() int {
	if s.Minor < newestMinor {
		return 0
	}
	return newestMinor
}

// LongKeys reports whether the client takes cancel keys of more than four bytes.
func (s Startup) LongKeys() bool { return s.Spoken() == newestMinor }

// Negotiated reports whether the client is to be sent NegotiateProtocolVersion: it has
// asked for a version or an option that we do not know. Of 3.1, which never was,
// PostgreSQL 18 says nothing and speaks 3.0.
func (s Startup) Negotiated() bool { return s.Minor > newestMinor || len(s.Options) > 0 }

// Get returns a parameter's value, or "". Of a name that is given twice the last
// one counts, as in PostgreSQL.
func (s Startup) Get(name string) string {
	for i := len(s.Parameters) - 1; i >= 0; i-- {
		if s.Parameters[i][0] == name {
			return s.Parameters[i][1]
		}
	}
	return ""
}

// ParseStartup reads a startup packet without its length word (PostgreSQL,
// "StartupMessage").
func ParseStartup(packet []byte) (Startup, error) {
	if len(packet) < 5 || len(packet) > MaxStartup-4 {
		return Startup{}, fmt.Errorf("%w: invalid length of startup packet", armor.ErrInvalid)
	}
	version := binary.BigEndian.Uint32(packet)
	if version>>16 != protocolMajor {
		return Startup{}, fmt.Errorf("%w: unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d",
			armor.ErrInvalid, version>>16, version&0xffff, newestMinor)
	}
	s := Startup{Minor: int(version & 0xffff)}
	rest := packet[4:]
	for len(rest) > 0 && rest[0] != 0 {
		name, more, ok := cutString(rest)
		if !ok {
			return Startup{}, badLayout()
		}
		value, more, ok := cutString(more)
		if !ok {
			return Startup{}, badLayout()
		}
		s.add(string(name), string(value))
		rest = more
	}
	if len(rest) != 1 {
		return Startup{}, badLayout()
	}
	return s, nil
}

func (s *Startup) add(name, value string) {
	if strings.HasPrefix(name, OptionPrefix) {
		s.Options = append(s.Options, name)
		return
	}
	s.Parameters = append(s.Parameters, [2]string{name, value})
}

func badLayout() error {
	return fmt.Errorf("%w: invalid startup packet layout: expected terminator as last byte", armor.ErrInvalid)
}

// ParseCancel reads a CancelRequest without its length word. The error is for a key of
// a length that we make none of.
func ParseCancel(packet []byte) (armor.CancelKey, error) {
	if IsCancel(packet) {
		if key, ok := armor.ParseCancelKey(packet[4:]); ok {
			return key, nil
		}
	}
	return armor.CancelKey{}, fmt.Errorf("%w: cancel request of %d bytes", armor.ErrInvalid, len(packet)+4)
}
