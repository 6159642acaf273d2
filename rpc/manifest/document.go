package manifest

// The shapes of the documents, field by field as they are written. Durations are text
// here, with their unit: a bare number could be taken for seconds. What is said of each field is
// docs/reference.md's text (tools/reference).

type document[S any] struct {
	APIVersion text     `yaml:"apiVersion"`
	Kind       text     `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

// metadata names an object.
type metadata struct {
	// Name is 1 to 63 letters, digits, '-', '_' and '.'. Required.
	Name text `yaml:"name"`
	// Environment is the environment that the object belongs to. Required, but for an
	// Environment, which is in none.
	Environment text `yaml:"environment,omitempty"`
}

// environmentSpec is one island of trust, such as production or staging.
type environmentSpec struct {
	// Inventory is open, or required: then only registered certificates are let in.
	// Default: open.
	Inventory text `yaml:"inventory,omitempty"`
	// MaxLeafLifetime is the longest life of a client certificate. Default: no bound.
	MaxLeafLifetime text `yaml:"maxLeafLifetime,omitempty"`
	// Freshness is how old a node's proof of the trust state may grow.
	Freshness freshness `yaml:"freshness,omitempty"`
	// Cancel is which cancel requests are taken: any, or tls-only, with a client certificate.
	// Default: any.
	Cancel text `yaml:"cancel,omitempty"`
}

// freshness bounds how long a node that is cut off serves.
type freshness struct {
	// New is how long a node goes on to let in new sessions without a proof. Default: 5s.
	New text `yaml:"new,omitempty"`
	// Live is how long it keeps live sessions, up to 10m. Default: 15s.
	Live text `yaml:"live,omitempty"`
}

// databaseSpec is a PostgreSQL database and how nodes log in to it. One of the name "*" is the
// template for those that are not listed.
type databaseSpec struct {
	// Hosts are host:port, or the folder of a Unix socket with :port. Required.
	Hosts []text `yaml:"hosts,flow"`
	// DBName is the name on the server. Required, but for the template, which opens what the
	// client asks for.
	DBName text `yaml:"dbname,omitempty"`
	// TLS is how nodes connect.
	TLS tls `yaml:"tls"`

	// TargetSessionAttrs is libpq's target_session_attrs: any, read-write, read-only, primary,
	// standby or prefer-standby. Default: any.
	TargetSessionAttrs text `yaml:"targetSessionAttrs,omitempty"`
	// MaxLag is how far behind its primary a standby may be to be chosen. Default: however far.
	MaxLag text `yaml:"maxLag,omitempty"`
	// LoadBalanceHosts is libpq's load_balance_hosts: disable, as they are listed, or random.
	// Default: disable.
	LoadBalanceHosts text `yaml:"loadBalanceHosts,omitempty"`

	// Auth is how nodes log in, and how clients are asked for a second factor.
	Auth auth `yaml:"auth,omitempty"`
}

type tls struct {
	// Mode is libpq's sslmode: disable, require, verify-ca or verify-full. Required.
	Mode text `yaml:"mode"`
	// CA is the CA of the server's certificate, NAME.pem in each node's folder of secrets.
	// Required for verify-ca and verify-full.
	CA secret `yaml:"ca,omitempty"`
}

type auth struct {
	// Roles are the roles that clients may ask for, and how nodes log in as each.
	Roles map[text]credential `yaml:"roles,omitempty"`
	// Exclusive says that nobody but Armor logs in with these roles. Default: false.
	Exclusive bool `yaml:"exclusive,omitempty"`
	// Verifiers are the SCRAM verifiers of clients' passwords, NAME.verifiers in each node's
	// folder of secrets. Required, or a query, where a grant asks for a second factor.
	Verifiers secret `yaml:"verifiers,omitempty"`
	// Query has PostgreSQL asked for the verifiers instead, as PgBouncer's auth_query does.
	Query authQuery `yaml:"query,omitempty"`
}

// credential is how to log in as a role; an empty one needs nothing.
type credential struct {
	// Secret is the password, NAME.yaml in each node's folder of secrets. Default: none.
	Secret text `yaml:"secret,omitempty"`
	// Certificate is a client certificate, NAME.crt and NAME.key there. Default: none.
	Certificate secret `yaml:"certificate,omitempty"`
	// Allow may be md5, for servers that have no SCRAM verifier of the role. Default: none.
	Allow text `yaml:"allow,omitempty"`
}

type authQuery struct {
	// Role is the role that asks, one of roles. Required.
	Role text `yaml:"role,omitempty"`
	// Statement is the query, of one parameter, the client's role. Required.
	Statement text `yaml:"statement,omitempty"`
}

// secret names a secret; an empty one is none.
type secret struct {
	// Secret is the secret's name. Default: none.
	Secret text `yaml:"secret,omitempty"`
}

// poolSpec is one logical pool for the whole cluster. pooling.md says what is behind each field.
type poolSpec struct {
	// Database is the Database's name. Required.
	Database text `yaml:"database"`
	// Mode is session, transaction or statement. Required.
	Mode text `yaml:"mode"`
	// Budget is how many server connections all nodes together may have. Required.
	Budget int `yaml:"budget"`
	// QueryWait is how long a client waits for a server connection. Default: 2m.
	QueryWait text `yaml:"queryWait,omitempty"`

	// QueryWaitNotify is how long it waits before it is told so. Default: 5s; 0s is off.
	QueryWaitNotify text `yaml:"queryWaitNotify,omitempty"`
	// ServerLifetime is the age at which an unused server connection ends. Default: 1h; 0s is off.
	ServerLifetime text `yaml:"serverLifetime,omitempty"`
	// ServerIdle is how long a server connection may be unused. Default: 10m; 0s is off.
	ServerIdle text `yaml:"serverIdle,omitempty"`

	// OnState is what becomes of a command that leaves session state behind, outside of session
	// mode: keep, reset, pin or refuse. Default: keep.
	OnState text `yaml:"onState,omitempty"`
	// Isolation is between whom server connections are reset: identity, always or none.
	// Default: identity.
	Isolation text `yaml:"isolation,omitempty"`
	// KeepSettings are parameters such as app.tenant that functions set. Default: none.
	KeepSettings []text `yaml:"keepSettings,flow,omitempty"`
	// MaxPinned is how many clients on one node may keep a server connection for their state.
	// Default: half of the node's share.
	MaxPinned *int `yaml:"maxPinned,omitempty"`
	// MaxPreparedStatements is how many statements a server connection keeps prepared.
	// Default: 200.
	MaxPreparedStatements int `yaml:"maxPreparedStatements,omitempty"`
	// ConnectQuery is SQL that is run on each server connection when it has logged in.
	// Default: none.
	ConnectQuery text `yaml:"connectQuery,omitempty"`
	// PoolIdle is how long a database of the template is served that nobody uses. Default: 1h.
	PoolIdle text `yaml:"poolIdle,omitempty"`
	// LoginNotifyMessage is told to each client as a notice when it has logged in. Default: none.
	LoginNotifyMessage text `yaml:"loginNotifyMessage,omitempty"`
	// MinSize is how many server connections a node keeps, within its share, for each role that
	// has logged in there. Default: 0.
	MinSize int `yaml:"minSize,omitempty"`
	// WarmUp keeps them from the start, for every role with a credential. Default: false.
	WarmUp bool `yaml:"warmUp,omitempty"`
	// Reserve is the part of the budget that is opened only for clients that have waited.
	// Default: 0.
	Reserve int `yaml:"reserve,omitempty"`
	// ReserveAfter is for how long they must have waited. Default: 5s where there is a reserve.
	ReserveAfter text `yaml:"reserveAfter,omitempty"`
	// MaxClients is how many sessions one node serves at once. Default: no bound.
	MaxClients int `yaml:"maxClients,omitempty"`
	// ClientIdle ends a session that has been between two transactions for so long. Default: off.
	ClientIdle text `yaml:"clientIdle,omitempty"`
	// IdleInTransaction ends one that holds a server connection while it is the client's turn.
	// Default: off.
	IdleInTransaction text `yaml:"idleInTransaction,omitempty"`
	// QueryTimeout ends one that PostgreSQL owes an answer for so long. Default: off.
	QueryTimeout text `yaml:"queryTimeout,omitempty"`
	// TransactionTimeout ends one whose transaction takes so long. Default: off.
	TransactionTimeout text `yaml:"transactionTimeout,omitempty"`
}

// identitySpec is who answers for an identity, and what it may reach.
type identitySpec struct {
	// ID is a SPIFFE id, or all below one: spiffe://DOMAIN/PATH/*. Required.
	ID text `yaml:"id"`
	// Owner is the team that answers for it. Default: none.
	Owner text `yaml:"owner,omitempty"`
	// Contact is how to reach it. Default: none.
	Contact text `yaml:"contact,omitempty"`
	// Grants are what it may reach. What no grant allows is denied. Default: none.
	Grants []grant `yaml:"grants,omitempty"`

	// MaxConnections is how many sessions one node serves at once under the object.
	// Default: no bound.
	MaxConnections int `yaml:"maxConnections,omitempty"`
}

type grant struct {
	// Database is a Database's name; "*" is any that is not listed. Required.
	Database text `yaml:"database"`
	// Roles are the roles that may be asked for, as the startup packet's user. Required.
	Roles []text `yaml:"roles,flow"`
	// Pool is the Pool that serves it. Required, but for the admin console, which has none.
	Pool text `yaml:"pool,omitempty"`
	// CIDRs are the networks that it may come from. Default: any.
	CIDRs []text `yaml:"cidrs,flow,omitempty"`
	// SecondFactor may be scram: the role's password is asked for beside the certificate.
	// Default: none.
	SecondFactor text `yaml:"secondFactor,omitempty"`
	// Replication also lets replication connections in. Default: false.
	Replication bool `yaml:"replication,omitempty"`
}
