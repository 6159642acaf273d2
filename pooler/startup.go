package pooler

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/core"
	"github.com/armordb/armordb/pooler/pgwire"
)

// minStartup is a length word and a protocol version.
const minStartup = 8

// readStartup reads one startup packet, without its length word, within patience. A
// session that is cut meanwhile still has a moment to say what it wants, so that it
// can be told why it may not.
func readStartup(ctx context.Context, conn net.Conn, patience time.Duration) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now().Add(farewell)) }) // a closed one needs none
	defer stop()
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size < minStartup || size > pgwire.MaxStartup {
		return nil, fmt.Errorf("%w: invalid length of startup packet", armor.ErrInvalid)
	}
	packet := make([]byte, size-4)
	_, err := io.ReadFull(conn, packet)
	return packet, err
}

// request is what a startup packet asks for.
type request struct {
	startup  pgwire.Startup
	database string
	role     string
	// application is the application name when it can be reported without asking
	// PostgreSQL what it makes of it; settings holds everything else, by lower-case
	// name.
	application string
	settings    map[string]string
	replication armor.Replication
	terms       *terms // nil: the login may be anybody's
}

func newRequest(s pgwire.Startup) request {
	r := request{startup: s, role: s.Get("user"), database: s.Get("database")}
	if r.database == "" {
		r.database = r.role
	}
	return r
}

// negotiation is what there is to say about the protocol that the client asks for, before
// anything else, and once.
func (r *request) negotiation() []byte {
	s := &r.startup
	if !s.Negotiated() {
		return nil
	}
	b := pgwire.AppendNegotiate(nil, s.Spoken(), s.Options)
	s.Minor, s.Options = s.Spoken(), nil
	return b
}

// notForClients are settings that a client cannot choose here, as PostgreSQL fixes
// them when a connection begins, or we do.
var notForClients = []string{
	"client_connection_check_interval", "tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_user_timeout",
	"ignore_system_indexes", "jit_debugging_support", "jit_profiling_support", "local_preload_libraries", "log_connections",
	"log_disconnections", "post_auth_delay", "session_preload_libraries",
}

// readSettings sorts the parameters of the startup packet. PostgreSQL lets those of
// the packet itself win over those in options.
func (r *request) readSettings() *pgwire.Error {
	settings, err := parseOptions(r.startup.Get("options"))
	if err != nil {
		return err
	}
	for _, p := range r.startup.Parameters {
		switch name, value := strings.ToLower(p[0]), p[1]; name {
		case "user", "database", "options", "replication":
		default:
			settings[name] = value
		}
	}
	for name := range settings {
		if slices.Contains(notForClients, name) {
			return unsupported(fmt.Sprintf("parameter %q cannot be set through Armor", name),
				"Not available in a startup packet: "+strings.Join(notForClients, ", ")+".")
		}
	}
	if name := settings["application_name"]; isPlain(name) {
		r.application = name
		delete(settings, "application_name")
	}
	r.settings = settings
	return nil
}

func unsupported(message, detail string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateUnsupported, Message: message, Detail: detail}
}

// readReplication finds out whether a replication connection is asked for, and of which
// kind, in PostgreSQL's way.
func (r *request) readReplication() *pgwire.Error {
	for _, p := range r.startup.Parameters {
		if strings.ToLower(p[0]) != "replication" {
			continue
		}
		switch value := p[1]; {
		case value == "database":
			r.replication = armor.LogicalReplication
		case isTrue(value):
			r.replication = armor.PhysicalReplication
		case isFalse(value):
			r.replication = armor.NoReplication
		default:
			return &pgwire.Error{
				Severity: pgwire.SeverityFatal, Code: stateBadValue,
				Message: fmt.Sprintf("invalid value for parameter \"replication\": %q", value),
				Hint:    `Valid values are: "false", 0, "true", 1, "database".`,
			}
		}
	}
	return nil
}

// reserved are words of the startup packet that are no settings. In options, where
// they would be some, PostgreSQL does not know them.
var reserved = []string{"user", "database", "options", "replication"}

// makeTerms finds what the request's login has to say by itself in a pool of the given
// mode, and takes the settings that are in it over. In session mode that makes RESET and
// DISCARD ALL lead to them, as they do without a pooler; an application's name is left
// out, so that those who differ by nothing else share server connections. A replication
// connection logs in with everything: not every one can SET.
func (r *request) makeTerms(mode armor.PoolMode) *pgwire.Error {
	if r.replication == armor.NoReplication && (mode != armor.SessionMode || len(r.settings) == 0) {
		return nil
	}
	t := &terms{replication: r.replication, parameters: r.settings}
	for name := range t.parameters {
		if slices.Contains(reserved, name) || strings.HasPrefix(name, pgwire.OptionPrefix) {
			message := fmt.Sprintf("unrecognized configuration parameter %q", name)
			return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateUnknownSetting, Message: message}
		}
	}
	if t.once() && r.application != "" {
		t.parameters["application_name"] = r.application
	}
	r.settings, r.terms = map[string]string{}, t
	return nil
}

// isTrue reports whether PostgreSQL reads value as the boolean true.
func isTrue(value string) bool {
	v := strings.ToLower(value)
	return v == "1" || v == "on" || v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v))
}

// isFalse reports whether PostgreSQL reads value as the boolean false.
func isFalse(value string) bool {
	v := strings.ToLower(value)
	return v == "0" || v == "of" || v == "off" || v != "" && (strings.HasPrefix("false", v) || strings.HasPrefix("no", v))
}

// isPlain reports whether PostgreSQL reports an application name just as it was
// given.
func isPlain(name string) bool {
	const longest = 63 // NAMEDATALEN - 1
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(name) <= longest
}

// parseOptions reads the command-line options in a startup packet: -c name=value,
// and --name=value, where '-' in a name stands for '_'.
func parseOptions(options string) (map[string]string, *pgwire.Error) {
	settings := map[string]string{}
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		word := words[i]
		assignment, ok := strings.CutPrefix(word, "--")
		if !ok {
			if assignment, ok = strings.CutPrefix(word, "-c"); ok && assignment == "" && i+1 < len(words) {
				i++
				assignment = words[i]
			}
		}
		name, value, assigned := strings.Cut(assignment, "=")
		if !ok || !assigned || name == "" {
			return nil, unsupported(fmt.Sprintf("startup option %q is not available through Armor", word),
				"Options are -c name=value and --name=value.")
		}
		settings[strings.ReplaceAll(strings.ToLower(name), "-", "_")] = value
	}
	return settings, nil
}

// splitOptions splits at white space that no backslash precedes, as PostgreSQL's
// pg_split_opts does.
func splitOptions(s string) (words []string) {
	var word strings.Builder
	inWord, escaped := false, false
	for _, c := range []byte(s) {
		switch {
		case escaped:
			word.WriteByte(c)
			escaped = false
		case c == '\\':
			inWord, escaped = true, true
		case strings.IndexByte(" \t\n\v\f\r", c) >= 0:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// statements returns the SQL that applies the settings; empty for none.
func (r *request) statements() string { return core.NewSettings(r.settings).SQL() }

// wanted returns what is to be in force for the client: all of the settings.
func (r *request) wanted() *core.Settings {
	all := maps.Clone(r.settings)
	if r.application != "" && r.terms == nil {
		all["application_name"] = r.application
	}
	return core.NewSettings(all)
}

// guess returns what PostgreSQL reports to the client if it takes the settings as they are.
func (r *request) guess(base *core.Params) *core.Params {
	params := base
	for name := range base.All() {
		if value, set := r.settings[strings.ToLower(name)]; set {
			params = params.With(name, value)
		}
	}
	return params
}

// startupError is what a client reads about a packet that is none.
func startupError(packet []byte, err error) *pgwire.Error {
	code := stateProtocol
	if len(packet) >= 2 && binary.BigEndian.Uint16(packet) != 3 {
		code = stateUnsupported // another major version of the protocol
	}
	message := strings.TrimPrefix(err.Error(), armor.ErrInvalid.Error()+": ")
	return &pgwire.Error{Severity: pgwire.SeverityFatal, Code: code, Message: message}
}
