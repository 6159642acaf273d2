package pooler

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// execute runs a command.
func (c *console) execute(cmd command) (answer, *pgwire.Error) {
	switch cmd.verb {
	case "show":
		return c.show(cmd)
	case "set":
		return c.set(cmd)
	}
	act, ok := adminActs[cmd.verb]
	switch {
	case !ok:
		return answer{}, invalidCommand(cmd)
	case !c.admin:
		return answer{}, needsAdmin()
	}
	c.home.cfg.Logger.Info("admin command", armor.KeyMethod, cmd.verb, armor.KeyIdentity, string(c.client.guest.Peer().Leaf.Identity),
		armor.KeySource, c.client.guest.Peer().Source.String(), armor.KeyDatabase, cmd.arg)
	if refused := act(c, cmd); refused != nil {
		return answer{}, refused
	}
	return answer{tag: strings.ToUpper(cmd.verb)}, nil
}

// adminActs are the commands that change something.
var adminActs = map[string]func(*console, command) *pgwire.Error{
	"pause": (*console).pause, "resume": (*console).resume, "reconnect": (*console).reconnect, "kill": (*console).killDatabase,
	"disable": (*console).disable, "enable": (*console).enable, "kill_client": (*console).killClient, "reload": (*console).reload,
	"wait_close": (*console).waitClose, "shutdown": (*console).shutdown, "suspend": (*console).suspend,
}

func needsAdmin() *pgwire.Error { return consoleError(stateNotAllowed, "admin access needed") }

// ignoredSettings are what drivers set or ask for without need. PgBouncer answers for
// all but the last.
var ignoredSettings = map[string]string{
	"client_encoding": "UTF-8", "default_transaction_isolation": "read committed", "standard_conforming_strings": "on",
	"datestyle": "ISO", "timezone": "GMT", "extra_float_digits": "2", "application_name": "",
}

func (c *console) set(cmd command) (answer, *pgwire.Error) {
	if _, ok := ignoredSettings[strings.ToLower(cmd.arg)]; ok {
		return answer{tag: "SET", notice: &pgwire.Error{Severity: "NOTICE", Code: "00000", Message: "SET ignored"}}, nil
	}
	if !c.admin {
		return answer{}, needsAdmin()
	}
	e := consoleError(stateUnsupported, "SET failed")
	e.Detail, e.Hint = "The configuration is the cluster's.", "Change it with armorctl apply."
	return answer{}, e
}

// pools are those of a database, or all of the environment without a name. verb is for
// the errors, in PgBouncer's words.
func (c *console) pools(verb, database string) ([]*pool, *pgwire.Error) {
	if armor.IsConsole(database) {
		return nil, consoleError(stateNotInState, fmt.Sprintf("cannot %s admin db: %s", verb, database))
	}
	var found []*pool
	for _, pl := range c.home.allPools() {
		cfg, ok := pl.serving()
		if ok && cfg.Environment == c.environment && (database == "" || cfg.Database == database) {
			found = append(found, pl)
		}
	}
	if len(found) == 0 && database != "" {
		return nil, consoleError(stateNoDatabase, "no such database: "+quoted(database))
	}
	return found, nil
}

// serving returns the pool's configuration, unless it is retired.
func (p *pool) serving() (armor.Pool, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg, !p.retired
}

// obeyAll does one thing to the pools of a database, or to all.
func (c *console) obeyAll(word string, verb armor.PoolVerb, database string) ([]*pool, *pgwire.Error) {
	pools, refused := c.pools(word, database)
	for _, pl := range pools {
		c.home.obey(pl, verb)
	}
	return pools, refused
}

func alreadyPaused() *pgwire.Error {
	return consoleError(stateNotInState, "already suspended/paused")
}

// pause waits until no server connection is open. A cancel request takes it back, as
// in PgBouncer; when the client leaves it stays.
func (c *console) pause(cmd command) *pgwire.Error {
	switch {
	case cmd.arg == "" && !c.home.pauseAll(c.environment), cmd.arg != "" && c.home.isPaused(c.environment):
		return alreadyPaused()
	}
	pools, refused := c.obeyAll("pause", armor.PausePool, cmd.arg)
	if refused != nil {
		return refused
	}
	for _, pl := range pools {
		err := c.await(pl.whenPaused())
		if errors.Is(err, errInterrupted) {
			c.takeBack(pools)
		}
		if err != nil {
			return canceledError()
		}
	}
	return nil
}

// takeBack undoes a pause.
func (c *console) takeBack(pools []*pool) {
	c.home.dissolvePause(c.environment)
	for _, pl := range pools {
		pl.resume()
	}
}

func (c *console) resume(cmd command) *pgwire.Error {
	if cmd.arg == "" {
		if !c.home.dissolvePause(c.environment) {
			return consoleError(stateNotInState, "pooler is not paused/suspended")
		}
		_, refused := c.obeyAll("resume", armor.ResumePool, "")
		return refused
	}
	pools, refused := c.pools("resume", cmd.arg)
	if refused != nil {
		return refused
	}
	paused := false
	for _, pl := range pools {
		paused = paused || pl.isPaused()
	}
	if !paused {
		return consoleError(stateNotInState, fmt.Sprintf("database %s is not paused", quoted(cmd.arg)))
	}
	c.home.dissolvePause(c.environment)
	_, refused = c.obeyAll("resume", armor.ResumePool, cmd.arg)
	return refused
}

func (p *pool) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.switches.paused
}

func (c *console) reconnect(cmd command) *pgwire.Error {
	_, refused := c.obeyAll("reconnect", armor.ReconnectPool, cmd.arg)
	return refused
}

func (c *console) killDatabase(cmd command) *pgwire.Error {
	if c.home.isPaused(c.environment) {
		return alreadyPaused()
	}
	_, refused := c.obeyAll("kill", armor.KillPool, cmd.arg)
	return refused
}

func (c *console) disable(cmd command) *pgwire.Error { return c.open(cmd, armor.DisablePool) }

func (c *console) enable(cmd command) *pgwire.Error { return c.open(cmd, armor.EnablePool) }

// open is DISABLE and ENABLE, which want a name.
func (c *console) open(cmd command, verb armor.PoolVerb) *pgwire.Error {
	if cmd.arg == "" {
		return consoleError(stateSyntax, "a database is required")
	}
	_, refused := c.obeyAll(cmd.verb, verb, cmd.arg)
	return refused
}

func (c *console) killClient(cmd command) *pgwire.Error {
	id, err := strconv.ParseUint(cmd.arg, 10, 64)
	switch {
	case err != nil:
		return consoleError(stateSyntax, "invalid client pointer supplied")
	case !c.home.killClient(c.environment, id):
		return consoleError(stateNoObject, "client not found")
	}
	return nil
}

// reload has failed logins tried again at once. Secrets are read at every login, and
// the rest of the configuration comes from the cluster by itself.
func (c *console) reload(cmd command) *pgwire.Error {
	if cmd.arg != "" {
		return invalidCommand(cmd)
	}
	pools, refused := c.pools("reload", "")
	for _, pl := range pools {
		pl.retryLogins()
	}
	return refused
}

// waitClose waits until the server connections have ended that RECONNECT was about.
func (c *console) waitClose(cmd command) *pgwire.Error {
	pools, refused := c.pools("wait in", cmd.arg)
	if refused != nil {
		return refused
	}
	for _, pl := range pools {
		if err := c.await(pl.whenReconnected()); err != nil {
			return canceledError()
		}
	}
	return nil
}

func (c *console) suspend(cmd command) *pgwire.Error {
	if cmd.arg != "" {
		return invalidCommand(cmd)
	}
	e := consoleError(stateUnsupported, "SUSPEND is not available")
	e.Detail, e.Hint = "A node hands its sockets to no other process.", "Use PAUSE, or stop the node: its clients leave between two transactions."
	return e
}

// shutdown ends the node. It is refused while the node serves other environments,
// whose clients are none of this operator's business.
func (c *console) shutdown(cmd command) *pgwire.Error {
	mode := strings.ToLower(cmd.arg)
	if mode != "" && mode != "wait_for_servers" && mode != "wait_for_clients" {
		return invalidCommand(cmd)
	}
	if c.home.cfg.Console.Shutdown == nil {
		return consoleError(stateUnsupported, "SHUTDOWN is not available")
	}
	for _, pl := range c.home.allPools() {
		if cfg, ok := pl.serving(); ok && cfg.Environment != c.environment {
			e := consoleError(stateNotAllowed, "SHUTDOWN would end clients of other environments")
			e.Hint = "Stop the node's service instead."
			return e
		}
	}
	switch mode {
	case "":
		for _, cl := range c.home.allClients() {
			if cl != c.client {
				cl.kill(shutdownDenial())
			}
		}
	case "wait_for_clients":
		c.home.closeDoor(c.home.cfg.Console.Shutdown)
		return nil
	}
	c.home.cfg.Console.Shutdown()
	return nil
}
