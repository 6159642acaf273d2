package pooler

import (
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/backend"
	"github.com/armordb/armordb/pooler/console"
)

// Secrets resolves the names of the replicated configuration on this node. Calls may
// read files.
type Secrets interface {
	backend.Secrets
	// Verifiers returns the SCRAM verifiers by role, as in pg_authid.rolpassword.
	Verifiers(name armor.SecretName) (map[string]string, error)
}

// Config is what a Pooler needs. Secrets, Driver and Logger are required; a zero
// duration or number means its default.
type Config struct {
	Node    uint16 // this member's index, for cancel keys
	Secrets Secrets
	Driver  Driver
	Logger  *slog.Logger
	Hooks   Hooks
	Dial    backend.Dial // nil: backend.DefaultDialer's
	// Register is where the server connections are written down that the node has, and what
	// its former lives have left. Nil: nothing is written down.
	Register *backend.Register
	// CancelTLSOnly says whether an environment refuses cancel requests that come without
	// TLS. It must not block. Nil: none does.
	CancelTLSOnly func(environment string) bool
	// CancelSigner is a secret that all nodes share: it proves that one of them has made a
	// cancel key of protocol 3.2. Nil: one that this process makes up.
	CancelSigner []byte

	Console console.Node

	// DecoyKey is a secret that all nodes share. It makes the verifiers of roles that have
	// none look alike everywhere. Nil: one that this process makes up.
	DecoyKey []byte

	StartupTimeout   time.Duration // from a proven client to its whole startup packet; default 10 s
	PasswordTimeout  time.Duration // from asking for a password to its proof; default 10 s
	LoginTimeout     time.Duration // one login to PostgreSQL, dialling included; default 15 s
	LookupTimeout    time.Duration // the query for a client's verifier, once it has a server connection; default 5 s
	ResetTimeout     time.Duration // DISCARD ALL between two clients; default 5 s
	EndTimeout       time.Duration // one attempt to end a server connection; default 5 s
	VanishedFor      time.Duration // how long a connection that broke without an end keeps its place; default 40 s
	ShutdownTimeout  time.Duration // how long Run waits for server connections to end; default 10 s
	Watch            time.Duration // how often idle server connections are looked at; default 250 ms
	CancelsPerSecond float64       // cancel requests of one session; default 10, in bursts of twice as many
	GuessesPerSecond float64       // failed passwords of one identity at one source; default 1, in bursts of ten times as many
	StatementMemory  int           // bytes of prepared statements of one session; default 8 MiB
}

// Hooks tell what happens, for metrics. Each may be nil, is called from many
// goroutines and must not block.
type Hooks struct {
	// QueryWait is asked once for each pool; what it returns is called whenever a client
	// got its server connection.
	QueryWait   func(pool string) func(took time.Duration)
	ServerLogin func(pool string, took time.Duration, e error) // a login to PostgreSQL ended
	ServerEnd   func(pool string)                              // the end of a server connection was read
	// Password: a client was asked for its password. The result is "ok", the reason of
	// a refusal, or "abandoned".
	Password func(result string)
	Lookup   func(result string) // PostgreSQL was asked for a verifier: "found", "none", "unfit" or "failed"
	Canceled func(pool string)   // a cancel request was carried out
	// Pin: a client asked to keep its server connection between transactions; room: it may.
	Pin func(pool string, room bool)
}

// fill puts the defaults where nothing is said.
func (c *Config) fill() {
	if c.Dial == nil {
		c.Dial = backend.DefaultDialer.DialContext
	}
	orDefault(&c.StartupTimeout, 10*time.Second)
	orDefault(&c.PasswordTimeout, 10*time.Second)
	orDefault(&c.LoginTimeout, 15*time.Second)
	orDefault(&c.LookupTimeout, 5*time.Second)
	orDefault(&c.ResetTimeout, 5*time.Second)
	orDefault(&c.EndTimeout, 5*time.Second)
	orDefault(&c.VanishedFor, backend.FencedAfter)
	orDefault(&c.ShutdownTimeout, 10*time.Second)
	orDefault(&c.Watch, 250*time.Millisecond)
	orDefault(&c.CancelsPerSecond, 10)
	orDefault(&c.GuessesPerSecond, 1)
	orDefault(&c.StatementMemory, 8<<20)
	for _, key := range []*[]byte{&c.DecoyKey, &c.CancelSigner} {
		if *key == nil {
			*key = []byte(rand.Text())
		}
	}
	if c.CancelTLSOnly == nil {
		c.CancelTLSOnly = func(string) bool { return false }
	}
}

func orDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
