package manifest

// The shapes of the documents, field by field as they are written. Durations are text
// here, with their unit: a bare number could be taken for seconds.

type document[S any] struct {
	APIVersion text     `yaml:"apiVersion"`
	Kind       text     `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

type metadata struct {
	Name        text `yaml:"name"`
	Environment text `yaml:"environment,omitempty"`
}

type environmentSpec struct {
	Inventory       text      `yaml:"inventory,omitempty"`
	MaxLeafLifetime text      `yaml:"maxLeafLifetime,omitempty"`
	Freshness       freshness `yaml:"freshness,omitempty"`
	Cancel          text      `yaml:"cancel,omitempty"`
}

type freshness struct {
	New  text `yaml:"new,omitempty"`
	Live text `yaml:"live,omitempty"`
}

type databaseSpec struct {
	Hosts  []text `yaml:"hosts,flow"`
	DBName text   `yaml:"dbname,omitempty"`
	TLS    tls    `yaml:"tls"`

	TargetSessionAttrs text `yaml:"targetSessionAttrs,omitempty"`
	MaxLag             text `yaml:"maxLag,omitempty"`
	LoadBalanceHosts   text `yaml:"loadBalanceHosts,omitempty"`

	Auth auth `yaml:"auth,omitempty"`
}

type tls struct {
	Mode text   `yaml:"mode"`
	CA   secret `yaml:"ca,omitempty"`
}

type auth struct {
	Roles     map[text]credential `yaml:"roles,omitempty"`
	Exclusive bool                `yaml:"exclusive,omitempty"`
	Verifiers secret              `yaml:"verifiers,omitempty"`
	Query     authQuery           `yaml:"query,omitempty"`
}

// credential is how to log in as a role; an empty one needs nothing.
type credential struct {
	Secret      text   `yaml:"secret,omitempty"`
	Certificate secret `yaml:"certificate,omitempty"`
	Allow       text   `yaml:"allow,omitempty"`
}

type authQuery struct {
	Role      text `yaml:"role,omitempty"`
	Statement text `yaml:"statement,omitempty"`
}

// secret names a secret; an empty one is none.
type secret struct {
	Secret text `yaml:"secret,omitempty"`
}

type poolSpec struct {
	Database  text `yaml:"database"`
	Mode      text `yaml:"mode"`
	Budget    int  `yaml:"budget"`
	QueryWait text `yaml:"queryWait,omitempty"`

	// Absent is PgBouncer's default; 0s is off.
	QueryWaitNotify text `yaml:"queryWaitNotify,omitempty"`
	ServerLifetime  text `yaml:"serverLifetime,omitempty"`
	ServerIdle      text `yaml:"serverIdle,omitempty"`

	OnState               text   `yaml:"onState,omitempty"`
	Isolation             text   `yaml:"isolation,omitempty"`
	KeepSettings          []text `yaml:"keepSettings,flow,omitempty"`
	MaxPinned             *int   `yaml:"maxPinned,omitempty"` // absent is half of the share
	MaxPreparedStatements int    `yaml:"maxPreparedStatements,omitempty"`
	ConnectQuery          text   `yaml:"connectQuery,omitempty"`
	PoolIdle              text   `yaml:"poolIdle,omitempty"`
	LoginNotifyMessage    text   `yaml:"loginNotifyMessage,omitempty"`
	MinSize               int    `yaml:"minSize,omitempty"`
	WarmUp                bool   `yaml:"warmUp,omitempty"`
	Reserve               int    `yaml:"reserve,omitempty"`
	ReserveAfter          text   `yaml:"reserveAfter,omitempty"`
	MaxClients            int    `yaml:"maxClients,omitempty"`
	ClientIdle            text   `yaml:"clientIdle,omitempty"`
	IdleInTransaction     text   `yaml:"idleInTransaction,omitempty"`
	QueryTimeout          text   `yaml:"queryTimeout,omitempty"`
	TransactionTimeout    text   `yaml:"transactionTimeout,omitempty"`
}

type identitySpec struct {
	ID      text    `yaml:"id"`
	Owner   text    `yaml:"owner,omitempty"`
	Contact text    `yaml:"contact,omitempty"`
	Grants  []grant `yaml:"grants,omitempty"`

	MaxConnections int `yaml:"maxConnections,omitempty"`
}

type grant struct {
	Database     text   `yaml:"database"`
	Roles        []text `yaml:"roles,flow"`
	Pool         text   `yaml:"pool,omitempty"`
	CIDRs        []text `yaml:"cidrs,flow,omitempty"`
	SecondFactor text   `yaml:"secondFactor,omitempty"`
	Replication  bool   `yaml:"replication,omitempty"`
}
