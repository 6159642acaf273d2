package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// execute runs a command.
func (s *session) execute(cmd command) (answer, *pgwire.Error) {
	switch cmd.verb {
	case "show":
		return s.show(cmd)
	case "set":
		return s.set(cmd)
	}
	act, ok := acts[cmd.verb]
	switch {
	case !ok:
		return answer{}, invalidCommand(cmd)
	case !s.admin:
		return answer{}, needsAdmin()
	}
	s.console.cfg.Logger.Info("admin command", armor.KeyMethod, cmd.verb, armor.KeyIdentity, string(s.Peer().Leaf.Identity),
		armor.KeySource, s.Peer().Source.String(), armor.KeyDatabase, cmd.arg)
	if refused := act(s, cmd); refused != nil {
		return answer{}, refused
	}
	return answer{tag: strings.ToUpper(cmd.verb)}, nil
}

// acts are the commands that change something.
var acts = map[string]func(*session, command) *pgwire.Error{
	"pause": (*session).pause, "resume": (*session).resume, "reconnect": (*session).reconnect, "kill": (*session).killDatabase,
	"disable": (*session).disable, "enable": (*session).enable, "kill_client": (*session).killClient, "reload": (*session).reload,
	"wait_close": (*session).waitClose, "shutdown": (*session).shutdown, "suspend": (*session).suspend,
}

// canceled is in PostgreSQL's words.
func canceled() *pgwire.Error {
	return refusal(stateCanceled, "canceling statement due to user request")
}

func needsAdmin() *pgwire.Error { return refusal(stateNotAllowed, "admin access needed") }

// ignoredSettings are what drivers set or ask for without need. PgBouncer answers for
// all but the last.
var ignoredSettings = map[string]string{
	"client_encoding": "UTF-8", "default_transaction_isolation": "read committed", "standard_conforming_strings": "on",
	"datestyle": "ISO", "timezone": "GMT", "extra_float_digits": "2", "application_name": "",
}

func (s *session) set(cmd command) (answer, *pgwire.Error) {
	if _, ok := ignoredSettings[strings.ToLower(cmd.arg)]; ok {
		return answer{tag: "SET", notice: &pgwire.Error{Severity: "NOTICE", Code: "00000", Message: "SET ignored"}}, nil
	}
	if !s.admin {
		return answer{}, needsAdmin()
	}
	e := refusal(stateUnsupported, "SET failed")
	e.Detail, e.Hint = "The configuration is the cluster's.", "Change it with armorctl apply."
	return answer{}, e
}

// pools are those of a database, or all of the environment without a name. verb is for
// the errors, in PgBouncer's words.
func (s *session) pools(verb, database string) ([]Pool, *pgwire.Error) {
	if armor.IsConsole(database) {
		return nil, refusal(stateNotInState, fmt.Sprintf("cannot %s admin db: %s", verb, database))
	}
	var found []Pool
	for _, p := range s.pooler().Pools() {
		if cfg := p.Config(); cfg.Environment == s.Environment && (database == "" || cfg.Database == database) {
			found = append(found, p)
		}
	}
	if len(found) == 0 && database != "" {
		return nil, refusal(stateNoDatabase, "no such database: "+quoted(database))
	}
	return found, nil
}

// obeyAll does one thing to the pools of a database, or to all.
func (s *session) obeyAll(word string, verb armor.PoolVerb, database string) ([]Pool, *pgwire.Error) {
	pools, refused := s.pools(word, database)
	for _, p := range pools {
		p.Obey(verb)
	}
	return pools, refused
}

func alreadyPaused() *pgwire.Error {
	return refusal(stateNotInState, "already suspended/paused")
}

// pause waits until no server connection is open. A cancel request takes it back, as
// in PgBouncer; when the client leaves it stays.
func (s *session) pause(cmd command) *pgwire.Error {
	switch {
	case cmd.arg == "" && !s.pooler().PauseAll(s.Environment), cmd.arg != "" && s.pooler().AllPaused(s.Environment):
		return alreadyPaused()
	}
	pools, refused := s.obeyAll("pause", armor.PausePool, cmd.arg)
	if refused != nil {
		return refused
	}
	for _, p := range pools {
		err := s.await(p.WhenPaused())
		if errors.Is(err, errInterrupted) {
			s.takeBack(pools)
		}
		if err != nil {
			return canceled()
		}
	}
	return nil
}

// takeBack undoes a pause.
func (s *session) takeBack(pools []Pool) {
	s.pooler().DissolvePause(s.Environment)
	for _, p := range pools {
		p.Obey(armor.ResumePool)
	}
}

func (s *session) resume(cmd command) *pgwire.Error {
	if cmd.arg == "" {
		if !s.pooler().DissolvePause(s.Environment) {
			return refusal(stateNotInState, "pooler is not paused/suspended")
		}
		_, refused := s.obeyAll("resume", armor.ResumePool, "")
		return refused
	}
	pools, refused := s.pools("resume", cmd.arg)
	if refused != nil {
		return refused
	}
	if !slices.ContainsFunc(pools, Pool.Paused) {
		return refusal(stateNotInState, fmt.Sprintf("database %s is not paused", quoted(cmd.arg)))
	}
	s.pooler().DissolvePause(s.Environment)
	_, refused = s.obeyAll("resume", armor.ResumePool, cmd.arg)
	return refused
}

func (s *session) reconnect(cmd command) *pgwire.Error {
	_, refused := s.obeyAll("reconnect", armor.ReconnectPool, cmd.arg)
	return refused
}

func (s *session) killDatabase(cmd command) *pgwire.Error {
	if s.pooler().AllPaused(s.Environment) {
		return alreadyPaused()
	}
	_, refused := s.obeyAll("kill", armor.KillPool, cmd.arg)
	return refused
}

func (s *session) disable(cmd command) *pgwire.Error { return s.open(cmd, armor.DisablePool) }

func (s *session) enable(cmd command) *pgwire.Error { return s.open(cmd, armor.EnablePool) }

// open is DISABLE and ENABLE, which want a name.
func (s *session) open(cmd command, verb armor.PoolVerb) *pgwire.Error {
	if cmd.arg == "" {
		return refusal(stateSyntax, "a database is required")
	}
	_, refused := s.obeyAll(cmd.verb, verb, cmd.arg)
	return refused
}

func (s *session) killClient(cmd command) *pgwire.Error {
	id, err := strconv.ParseUint(cmd.arg, 10, 64)
	switch {
	case err != nil:
		return refusal(stateSyntax, "invalid client pointer supplied")
	case !s.pooler().Kill(s.Environment, id):
		return refusal(stateNoObject, "client not found")
	}
	return nil
}

// reload has failed logins tried again at once. Secrets are read at every login, and
// the rest of the configuration comes from the cluster by itself.
func (s *session) reload(cmd command) *pgwire.Error {
	if cmd.arg != "" {
		return invalidCommand(cmd)
	}
	pools, refused := s.pools("reload", "")
	for _, p := range pools {
		p.RetryLogins()
	}
	return refused
}

// waitClose waits until the server connections have ended that RECONNECT was about.
func (s *session) waitClose(cmd command) *pgwire.Error {
	pools, refused := s.pools("wait in", cmd.arg)
	if refused != nil {
		return refused
	}
	for _, p := range pools {
		if err := s.await(p.WhenReconnected()); err != nil {
			return canceled()
		}
	}
	return nil
}

func (s *session) suspend(cmd command) *pgwire.Error {
	if cmd.arg != "" {
		return invalidCommand(cmd)
	}
	e := refusal(stateUnsupported, "SUSPEND is not available")
	e.Detail = "A node hands its sockets to no other process."
	e.Hint = "Use PAUSE, or stop the node: its clients leave between two transactions."
	return e
}

// closeDoor takes no new clients any more once load balancers have had time to notice, and
// ends the node when the last has left.
func (s *session) closeDoor(shutdown func()) {
	pooler := s.pooler()
	shut := func() { pooler.CloseDoor(shutdown) }
	if announce := s.console.cfg.Announce; announce != nil {
		announce(shut)
		return
	}
	shut()
}

// shutdown ends the node. It is refused while the node serves other environments,
// whose clients are none of this operator's business.
func (s *session) shutdown(cmd command) *pgwire.Error {
	mode := strings.ToLower(cmd.arg)
	if mode != "" && mode != "wait_for_servers" && mode != "wait_for_clients" {
		return invalidCommand(cmd)
	}
	shutdown := s.console.cfg.Shutdown
	if shutdown == nil {
		return refusal(stateUnsupported, "SHUTDOWN is not available")
	}
	for _, p := range s.pooler().Pools() {
		if p.Config().Environment != s.Environment {
			e := refusal(stateNotAllowed, "SHUTDOWN would end clients of other environments")
			e.Hint = "Stop the node's service instead."
			return e
		}
	}
	switch mode {
	case "":
		if hurry := s.console.cfg.Hurry; hurry != nil {
			hurry()
		}
		s.pooler().KillOthers(s.ID)
	case "wait_for_clients":
		s.closeDoor(shutdown)
		return nil
	}
	shutdown()
	return nil
}
