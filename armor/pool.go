package armor

import "time"

// ObjectKey is the key of a named object of an environment in the state's tables.
func ObjectKey(environment, name string) string { return environment + "/" + name }

// SecretName names a secret or a CA file in the node-local secrets directory. The
// replicated configuration holds names, never paths or values.
type SecretName string

// TLSMode is libpq's sslmode for the server side.
type TLSMode string

const (
	TLSDisable    TLSMode = "disable"     // no TLS
	TLSRequire    TLSMode = "require"     // TLS, with whoever answers
	TLSVerifyCA   TLSMode = "verify-ca"   // TLS, and the server has a certificate of our CA
	TLSVerifyFull TLSMode = "verify-full" // the same, and it is for the host's name
)

// SessionAttrs is libpq's target_session_attrs: which of a database's hosts may serve.
type SessionAttrs string

const (
	AnySession    SessionAttrs = ""               // AnyWord: whichever lets us log in
	ReadWrite     SessionAttrs = "read-write"     // accepts writes by default
	ReadOnly      SessionAttrs = "read-only"      // accepts none by default
	Primary       SessionAttrs = "primary"        // not in recovery
	Standby       SessionAttrs = "standby"        // in recovery
	PreferStandby SessionAttrs = "prefer-standby" // a standby, or whichever there is
)

// LoadBalance is libpq's load_balance_hosts: in which order hosts are tried.
type LoadBalance string

const (
	InOrder    LoadBalance = ""       // InOrderWord: as they are listed
	RandomHost LoadBalance = "random" // in random order, anew at each login
)

// How the empty words of a configuration are written, in libpq's words where it has any.
const (
	AnyWord     = "any"     // AnySession, CancelAny
	InOrderWord = "disable" // InOrder
	ResetWord   = "reset"   // ResetState

	IdentityWord = "identity" // IsolatedIdentities
)

// Database is a PostgreSQL database and how nodes log in to it, or the template for all
// that are not listed (TemplateDatabase).
type Database struct {
	Name        string
	Environment string
	Hosts       []string // host:port, or the absolute path of a socket directory with :port
	DBName      string   // name on the server; empty in the template, which opens what the client asks for
	TLSMode     TLSMode
	CA          SecretName
	Roles       []RoleAuth // sorted by role
	// Exclusive declares that nobody but Armor logs in with these roles.
	Exclusive bool
	// Verifiers names the SCRAM verifiers by which the passwords of clients are
	// checked, where a grant asks for them. Under another name they are others: whoever
	// proved a password by the former ones has to prove it again.
	Verifiers SecretName
	// Query has PostgreSQL asked for them instead. Another one counts as other verifiers.
	Query AuthQuery
	// TargetSessionAttrs and LoadBalanceHosts choose among several Hosts at each login.
	TargetSessionAttrs SessionAttrs
	LoadBalanceHosts   LoadBalance
	// MaxLag is how far behind its primary a standby may be to be chosen at a login, where
	// TargetSessionAttrs asks for one; zero: however far.
	MaxLag time.Duration
}

// Key is the database's key in State.Databases.
func (d Database) Key() string { return ObjectKey(d.Environment, d.Name) }

// Ref names the database among the objects of the configuration.
func (d Database) Ref() ObjectRef { return ObjectRef{KindDatabase, d.Environment, d.Name} }

// PoolMode says when a server connection goes back to its pool.
type PoolMode string

const (
	SessionMode     PoolMode = "session"     // when the client disconnects
	TransactionMode PoolMode = "transaction" // when its transaction ends
	StatementMode   PoolMode = "statement"   // the same, and a transaction block is refused
)

// Isolation says between whom a server connection is reset before it is lent again,
// whatever the texts that ran on it have shown.
type Isolation string

// How clients are kept apart.
const (
	IsolatedIdentities Isolation = ""       // IdentityWord: between two identities, their hosts left out
	IsolatedClients    Isolation = "always" // between any two clients
	NoIsolation        Isolation = "none"   // by what is seen in the texts only
)

// OnState says what becomes of a command that leaves session state behind, outside of
// session mode.
type OnState string

const (
	ResetState  OnState = ""       // ResetWord: it is undone before the next client
	KeepState   OnState = "keep"   // settings follow their client, who keeps the server connection for what cannot
	PinState    OnState = "pin"    // the client keeps the server connection
	RefuseState OnState = "refuse" // the command is refused
)

// What a pool has that says nothing else: PgBouncer's defaults. The second to the fifth are
// filled in where a manifest is read, since zero means off in the state.
const (
	DefaultQueryWait       = 120 * time.Second // query_wait_timeout
	DefaultQueryWaitNotify = 5 * time.Second   // query_wait_notify
	DefaultServerLifetime  = time.Hour         // server_lifetime
	DefaultServerIdle      = 10 * time.Minute  // server_idle_timeout
	DefaultReserveAfter    = 5 * time.Second   // reserve_pool_timeout, where there is a reserve
	DefaultPoolIdle        = time.Hour         // autodb_idle_timeout

	DefaultPreparedStatements = 200 // max_prepared_statements
)

// Pool is one logical pool for the whole cluster: server connections to one
// database, in any of its roles, of which all nodes together hold at most Budget.
type Pool struct {
	Name        string
	Environment string
	Database    string
	Mode        PoolMode
	Budget      int
	// QueryWait is how long a client waits for a server connection before it is
	// refused. This and the other durations and bounds are off while they are zero, but
	// for this one, which is DefaultQueryWait then.
	QueryWait time.Duration
	// QueryWaitNotify is how long a client waits before it is told so by a notice.
	QueryWaitNotify time.Duration

	// ServerLifetime and ServerIdle end server connections that nobody uses: those that
	// are so old, and those that were not used for so long.
	ServerLifetime, ServerIdle time.Duration
	// MinSize is how many server connections a node keeps, within its share, for each
	// role that has logged in there; with WarmUp from the start, and for every role that
	// the database has a credential for.
	MinSize int
	WarmUp  bool
	// Reserve is the part of Budget that is opened only for a client that has waited
	// ReserveAfter. Both are zero or neither.
	Reserve      int
	ReserveAfter time.Duration

	// ClientIdle, IdleInTransaction, QueryTimeout and TransactionTimeout end a session
	// that is between transactions, idle inside of one, waiting for one answer of
	// PostgreSQL, or inside of one transaction for so long.
	ClientIdle, IdleInTransaction, QueryTimeout, TransactionTimeout time.Duration
	// MaxClients bounds the sessions that one node serves at once.
	MaxClients int
	OnState    OnState
	Isolation  Isolation
	// KeepSettings are parameters with a dot in their names, such as app.tenant, that
	// functions set. PostgreSQL lists no such, so that KeepState has to be told of them.
	KeepSettings []string
	// MaxPinned is how many of a node's server connections may at once be kept by clients
	// for what cannot follow them. Zero is half of the node's share, NoPins is none.
	MaxPinned int
	// MaxPreparedStatements is how many statements a server connection keeps prepared.
	// Zero is DefaultPreparedStatements.
	MaxPreparedStatements int
	// ConnectQuery is run on each server connection when it has logged in.
	ConnectQuery string
	// PoolIdle is how long a database of the template is served that nobody uses. Zero is
	// DefaultPoolIdle.
	PoolIdle time.Duration
	// LoginNotifyMessage is told to each client as a notice when it has logged in.
	LoginNotifyMessage string
}

// NoPins is MaxPinned of a pool that lets no client keep a server connection.
const NoPins = -1

// PinsOf is how many server connections of a node's share clients may keep at once: by
// default half of them, rounded down, so that some are left for everybody else.
func (p Pool) PinsOf(share int) int {
	switch p.MaxPinned {
	case 0:
		return share / 2
	case NoPins:
		return 0
	}
	return min(p.MaxPinned, share)
}

// Key is the pool's key in State.Pools and the stem of its shares' keys.
func (p Pool) Key() string { return ObjectKey(p.Environment, p.Name) }

// Ref names the pool among the objects of the configuration.
func (p Pool) Ref() ObjectRef { return ObjectRef{KindPool, p.Environment, p.Name} }

// ReserveOf is the part of a node's share that is the reserve: in proportion, rounded
// up, so that the nodes together never open more than Budget - Reserve before somebody
// has waited, but for a share of one, which is never kept back.
func (p Pool) ReserveOf(share int) int {
	if p.Reserve <= 0 || p.Budget <= 0 || share <= 1 {
		return 0
	}
	return min((share*p.Reserve+p.Budget-1)/p.Budget, share-1)
}
