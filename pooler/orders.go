package pooler

import (
	"fmt"
	"strings"

	"github.com/armordb/armordb/armor"
)

// Order carries out what an operator wants of one pool, and returns what has become of
// it. It does not wait for sessions: after a pause, PoolStatus.Open falls to zero as
// server connections come back. It returns ErrNotFound for a pool that there is not.
func (p *Pooler) Order(o armor.PoolOrder) (armor.PoolStatus, error) {
	if err := o.Validate(); err != nil {
		return armor.PoolStatus{}, err
	}
	p.mu.Lock()
	pl := p.pools[o.Key()]
	p.mu.Unlock()
	if pl == nil || !pl.serves() {
		return armor.PoolStatus{}, fmt.Errorf("%w: pool %s is not on this node", armor.ErrNotFound, o.Key())
	}
	if o.Verb == armor.ResumePool {
		p.dissolvePause(o.Environment)
	}
	p.obey(pl, o.Verb)
	p.cfg.Logger.Info("order carried out", armor.KeyMethod, string(o.Verb), armor.KeyPool, o.Key())
	s, _ := p.status(pl)
	return s, nil
}

// obey does one thing to one pool.
func (p *Pooler) obey(pl *pool, verb armor.PoolVerb) {
	switch verb {
	case armor.PausePool:
		pl.pause()
	case armor.ResumePool:
		pl.resume()
	case armor.ReconnectPool:
		pl.reconnect()
	case armor.KillPool:
		pl.pause()
		p.killClients(pl)
	case armor.DisablePool:
		pl.disable(true)
	case armor.EnablePool:
		pl.disable(false)
	}
}

// killClients ends all sessions of a pool.
func (p *Pooler) killClients(pl *pool) {
	for _, c := range p.roster.of(pl) {
		c.kill(killedDenial())
	}
}

func killedDenial() *armor.Denial {
	return &armor.Denial{Reason: armor.ReasonKilled, Message: "admin forced disconnect", Detail: "An operator has ended this session."}
}

// dissolvePause makes a pause of a whole environment one of each of its pools, so that
// they can be resumed one by one. It reports whether there was such a pause.
func (p *Pooler) dissolvePause(environment string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.paused[environment]
	delete(p.paused, environment)
	return before
}

// environmentOf is the environment in a pool's key.
func environmentOf(key string) string {
	environment, _, _ := strings.Cut(key, "/")
	return environment
}
