package pooler

import (
	"reflect"

	"github.com/armordb/armordb/pooler/core"
)

// reports are what server connections of a part say of themselves, so that a client can be
// welcomed without one. The pool's lock guards them.
type reports struct {
	base    *core.Params                 // after a login; nil until the first
	called  map[application]*core.Params // the same with an application's name in it, so that its clients share one
	applied map[string]*core.Params      // after the startup settings in the key were applied
}

// maxReports bounds the combinations of startup settings that are remembered, and the
// names.
const maxReports = 256

// forget is for a configuration that is new.
func (r *reports) forget() { r.base, r.applied = nil, nil }

// note takes what a connection reports when nothing is set: a new one, or one that has heard
// of a change of the server's configuration. What was learned of others is void if the
// server's defaults have changed.
func (r *reports) note(params *core.Params) {
	if r.base == nil || !reflect.DeepEqual(r.base, params) {
		r.base, r.applied = params, nil
	}
}

// application is a client program's name and what else its connections report.
type application struct {
	name string
	rest *core.Params
}

// paramsFor returns what a connection of the part reports once the settings in key
// were applied; nil when nobody has tried yet.
func (p *pool) paramsFor(of part, key string) *core.Params {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.subLocked(of).reports
	if key == "" {
		return r.base
	}
	return r.applied[key]
}

// namedFor returns params with an application's name in them.
func (p *pool) namedFor(of part, params *core.Params, name string) *core.Params {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, key := &p.subLocked(of).reports, application{name, params}
	if shared := r.called[key]; shared != nil {
		return shared
	}
	if r.called == nil || len(r.called) >= maxReports {
		r.called = map[application]*core.Params{}
	}
	r.called[key] = params.With("application_name", name)
	return r.called[key]
}

// learn remembers what a connection reported after the settings in key were applied.
func (p *pool) learn(c *ServerConn, key string, params *core.Params) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &c.sub.reports
	if key == "" || c.generation != p.generation || len(r.applied) >= maxReports {
		return
	}
	if r.applied == nil {
		r.applied = map[string]*core.Params{}
	}
	r.applied[key] = params
}
