package armor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ObjectKey is the key of a named object of an environment in the state's tables.
func ObjectKey(environment, name string) string { return environment + "/" + name }

// SecretName names a secret or a CA file in the node-local secrets directory. The
// replicated configuration holds names, never paths or values.
type SecretName string

// TLSMode is libpq's sslmode for the server side.
type TLSMode string

const (
	TLSDisable    TLSMode = "disable"
	TLSRequire    TLSMode = "require"
	TLSVerifyCA   TLSMode = "verify-ca"
	TLSVerifyFull TLSMode = "verify-full"
)

// Database is a PostgreSQL database and how nodes log in to it.
type Database struct {
	Name        string
	Environment string
	Hosts       []string // host:port, or the absolute path of a socket directory with :port
	DBName      string   // name on the server
	TLSMode     TLSMode
	CA          SecretName
	Roles       []RoleAuth // sorted by role
	// Exclusive declares that nobody but Armor logs in with these roles.
	Exclusive bool
}

// RoleAuth says which secret holds a server role's password.
type RoleAuth struct {
	Role   string
	Secret SecretName // empty: the server asks for none
}

// Auth returns how to log in as role.
func (d Database) Auth(role string) (RoleAuth, bool) {
	for _, a := range d.Roles {
		if a.Role == role {
			return a, true
		}
	}
	return RoleAuth{}, false
}

// PoolMode says when a server connection goes back to its pool.
type PoolMode string

const (
	SessionMode     PoolMode = "session"     // when the client disconnects
	TransactionMode PoolMode = "transaction" // when its transaction ends
)

// DefaultQueryWait is PgBouncer's query_wait_timeout.
const DefaultQueryWait = 120 * time.Second

// Pool is one logical pool for the whole cluster: server connections to one
// database, in any of its roles, of which all nodes together hold at most Budget.
type Pool struct {
	Name        string
	Environment string
	Database    string
	Mode        PoolMode
	Budget      int
	// QueryWait is how long a client waits for a server connection before it is
	// refused.
	QueryWait time.Duration
}

// Key is the pool's key in State.Pools and the stem of its shares' keys.
func (p Pool) Key() string { return ObjectKey(p.Environment, p.Name) }

// Share is the part of a pool's budget that one node holds.
//
// Granted counts against the budget; the node may hold min(Granted, Target) server
// connections. A share shrinks in two steps, so that a live node is never short of
// what it was promised: Target falls, the node closes connections and reports so,
// and only then does Granted fall.
type Share struct {
	Pool    string // pool key
	Node    NodeID
	Granted int
	Target  int
}

// Limit is how many server connections the holder may have open.
func (s Share) Limit() int { return min(s.Granted, s.Target) }

// ShareKey is a share's key in State.Shares.
func ShareKey(pool string, node NodeID) string { return pool + " " + string(node) }

// SharesOf returns a pool's shares in the order of their nodes.
func (s *State) SharesOf(pool string) []Share {
	var shares []Share
	for _, share := range s.Shares.Prefixed(pool + " ") {
		shares = append(shares, share)
	}
	return shares
}

// EvenShares cuts budget evenly over nodes, the first nodes in sorted order taking
// what is left over. It returns ErrInvalid when a node would get nothing.
func EvenShares(pool string, budget int, nodes []NodeID) ([]Share, error) {
	if budget < len(nodes) {
		return nil, fmt.Errorf("%w: budget %d of pool %s is smaller than the number of nodes, %d: each node needs at least one server connection", ErrInvalid, budget, pool, len(nodes))
	}
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b NodeID) int { return strings.Compare(string(a), string(b)) })
	shares := make([]Share, len(nodes))
	for i, n := range nodes {
		count := budget / len(nodes)
		if i < budget%len(nodes) {
			count++
		}
		shares[i] = Share{Pool: pool, Node: n, Granted: count, Target: count}
	}
	return shares, nil
}
