package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/rpc/manifest"
)

const (
	// patience bounds each step of creating or resuming a cluster.
	patience = time.Minute
	// pace is how often a step is tried until it succeeds.
	pace = 100 * time.Millisecond
	// firstContext is the operator's context while there is only the first node.
	firstContext = "n1"
)

// create makes the cluster as an operator would: init on the first node, a token and
// an approval for each of the others, and then a client CA.
func (c *cluster) create(ctx context.Context) error {
	if err := c.initFirst(ctx); err != nil {
		return err
	}
	for k := 2; k <= len(c.configs); k++ {
		if err := c.startJoiner(ctx, k); err != nil {
			return err
		}
	}
	for k := 2; k <= len(c.configs); k++ {
		if err := c.approve(ctx, k); err != nil {
			return err
		}
	}
	if err := c.addContext(ctx); err != nil {
		return err
	}
	_, err := c.armorctl(ctx, "ca", "init", "--environment", environmentName, "--out", c.clientCA(), "--unencrypted")
	return err
}

func (c *cluster) peerCA() string   { return c.dir.in("ca", "dev-peer") }
func (c *cluster) clientCA() string { return c.dir.in("ca", "dev-client") }

func (c *cluster) initFirst(ctx context.Context) error {
	if err := c.startNode(1); err != nil {
		return err
	}
	socket := c.configs[0].AdminSocket
	err := c.until(ctx, "node n1 waits to be initialised", func(context.Context) error {
		if !file.Exist(socket) {
			return fmt.Errorf("%w: there is no %s", armor.ErrUnavailable, socket)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = c.armorctl(ctx, "init", "--socket", socket, "--peer-ca", c.peerCA(), "--server-ca", c.serverRoot(),
		"--context", firstContext, "--unencrypted")
	return err
}

// startJoiner gives node k a token and starts it; it asks to be admitted.
func (c *cluster) startJoiner(ctx context.Context, k int) error {
	token, err := c.armorctl(ctx, "join-token", "create", nodeName(k))
	if err != nil {
		return err
	}
	if err := file.Replace(c.tokenFile(k), []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	return c.startNode(k)
}

func (c *cluster) approve(ctx context.Context, k int) error {
	return c.until(ctx, "node "+nodeName(k)+" is admitted", func(ctx context.Context) error {
		_, err := c.armorctl(ctx, "node", "approve", nodeName(k), "--peer-ca", c.peerCA())
		return err
	})
}

// addContext makes the context that knows every node.
func (c *cluster) addContext(ctx context.Context) error {
	add := []string{"context", "add", clusterName, "--server-ca", c.serverRoot(),
		"--cert", c.operatorFile("operator.crt"), "--key", c.operatorFile("operator.key"), "--peer-ca", c.operatorFile("peer-ca.crt")}
	for _, cfg := range c.configs {
		add = append(add, "--addr", cfg.Peer.Listen)
	}
	if _, err := c.armorctl(ctx, add...); err != nil {
		return err
	}
	_, err := c.armorctl(ctx, "context", "use", clusterName)
	return err
}

// operatorFile is where armorctl init has put a file of the operator's: in a folder
// named as the context, beside the context file.
func (c *cluster) operatorFile(name string) string {
	return filepath.Join(filepath.Dir(c.operatorContext()), firstContext, name)
}

// awaitReady waits until every node says that it can serve clients.
func (c *cluster) awaitReady(ctx context.Context) error {
	for k, cfg := range c.configs {
		err := c.until(ctx, "node "+nodeName(k+1)+" is ready", func(ctx context.Context) error { return probeReady(ctx, cfg.Ops.Listen) })
		if err != nil {
			return err
		}
	}
	return nil
}

func probeReady(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: /readyz says %s", armor.ErrUnavailable, response.Status)
	}
	return nil
}

// applyConfiguration applies what makes the demo identity able to reach the database,
// the first time, and what the user gave, every time. Later changes of the generated
// part are the user's and stay.
func (c *cluster) applyConfiguration(ctx context.Context, first bool) error {
	if first {
		if err := c.writeConfiguration(); err != nil {
			return err
		}
		if _, err := c.armorctl(ctx, "apply", "--add-budgets", "-f", c.dir.in("cluster.yaml")); err != nil {
			return err
		}
	}
	if c.apply != "" {
		if _, err := c.armorctl(ctx, "apply", "--add-budgets", "-f", c.apply); err != nil {
			return err
		}
	}
	if !first {
		return nil
	}
	_, err := c.armorctl(ctx, "cert", "issue", identityName, "--environment", environmentName, "--ca", c.clientCA(),
		"--lifetime", strconv.Itoa(int(lifetime/(24*time.Hour)))+"d", "--out", c.dir.in("demo"))
	return err
}

// writeConfiguration writes the generated cluster configuration.
func (c *cluster) writeConfiguration() error {
	text, err := manifest.Marshal(c.configuration())
	if err != nil {
		return err
	}
	return file.Replace(c.dir.in("cluster.yaml"), text, 0o600)
}

// configuration is one database in one pool, and an identity that may use it in the
// role of the URL.
func (c *cluster) configuration() *armor.State {
	name := c.server.database
	role := armor.RoleAuth{Role: c.server.role}
	if c.server.password != "" {
		role.Secret = armor.SecretName(name)
	}
	database := armor.Database{
		Name: name, Environment: environmentName, Hosts: []string{c.server.host}, DBName: name, TLSMode: c.server.tls,
		Roles: []armor.RoleAuth{role},
	}
	if c.server.caFile != "" {
		database.CA = armor.SecretName(name)
	}
	pool := armor.Pool{Name: name, Environment: environmentName, Database: name, Mode: armor.TransactionMode, OnState: armor.KeepState, Budget: poolBudget}
	identity := armor.IdentityConfig{
		Name: identityName, Environment: environmentName, ID: identityID, Owner: "armord dev",
		Grants: []armor.Grant{{Database: name, Roles: []string{role.Role}, Pool: name}},
	}
	s := &armor.State{}
	s.Databases = s.Databases.With(database)
	s.Pools = s.Pools.With(pool)
	s.Identities = s.Identities.With(identity)
	return s
}

// identityID is below what the client CA may vouch for by armorctl's defaults.
const identityID = "spiffe://" + environmentName + "." + clusterName + ".internal/app/" + identityName

// awaitServing waits until a client is served through every node.
func (c *cluster) awaitServing(ctx context.Context) error {
	for k, cfg := range c.configs {
		err := c.until(ctx, "a client is served through node "+nodeName(k+1), func(ctx context.Context) error {
			_, port, err := config.SplitAddress(cfg.Client.Listen)
			if err != nil {
				return err
			}
			return c.query(ctx, port)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// query runs a statement as a client with the demo certificate.
func (c *cluster) query(ctx context.Context, port int) error {
	parsed, err := pgconn.ParseConfig(fmt.Sprintf(
		"host=localhost port=%d user=%s dbname=%s sslmode=verify-full sslcert=%s sslkey=%s sslrootcert=%s",
		port, quoted(c.server.role), quoted(c.server.database),
		quoted(c.dir.in("demo", "client.crt")), quoted(c.dir.in("demo", "client.key")), quoted(c.serverRoot())))
	if err != nil {
		return err
	}
	conn, err := pgconn.ConnectConfig(ctx, parsed)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT 1").ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// quoted quotes a value of a connection string (PostgreSQL, "Connection Strings").
func quoted(s string) string {
	out := []byte{'\''}
	for _, b := range []byte(s) {
		if b == '\'' || b == '\\' {
			out = append(out, '\\')
		}
		out = append(out, b)
	}
	return string(append(out, '\''))
}

// until tries again until it succeeds, for patience at most, and not after a node
// has ended.
func (c *cluster) until(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if name, gone := c.ended(); gone {
			return fmt.Errorf("wait until %s: node %s has ended; see %s", what, name, filepath.Join(c.dir.in(name), "armord.log"))
		}
		pause(ctx, pace)
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}

// ended names a node whose process has ended.
func (c *cluster) ended() (name string, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.processes {
		if !p.Alive() {
			return p.name, true
		}
	}
	return "", false
}
