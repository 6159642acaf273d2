package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/door"
	"github.com/armordb/armordb/cmd/armord/config"
)

// probe is one condition of readiness: nil, or why a load balancer should send no new
// clients here.
type probe struct {
	name  string
	check func() error
	told  bool // by ?verbose only: it does not count
}

const (
	opsConns          = 128 // at once; when there are more, the oldest of the address that has most goes
	opsConnsPerSource = 32
	opsAnswerTime     = 10 * time.Second // to take an answer, profiles aside
)

// ops is the HTTP listener for load balancers and monitoring.
type ops struct {
	listener net.Listener
	door     *door.Door
	handler  http.Handler
	log      *slog.Logger
}

// newOps puts the handlers together; it starts nothing.
func newOps(l net.Listener, probes func() []probe, metrics http.Handler, withPprof bool, log *slog.Logger) *ops {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", soon(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	mux.HandleFunc("GET /readyz", soon(func(w http.ResponseWriter, r *http.Request) { answerReady(w, r, probes()) }))
	mux.HandleFunc("GET /metrics", soon(metrics.ServeHTTP))
	if withPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	guard := door.New(door.Config{Unproven: opsConns, PerSource: opsConnsPerSource, FirstByte: time.Second})
	return &ops{listener: guard.Listener(l), door: guard, handler: mux, log: log}
}

// soon gives whoever asked a bounded time to send the rest, if there is one, and to take
// the answer.
func soon(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		limit, control := time.Now().Add(opsAnswerTime), http.NewResponseController(w)
		_ = errors.Join(control.SetReadDeadline(limit), control.SetWriteDeadline(limit)) // a dead connection shows on use
		answer(w, r)
	}
}

// answerReady says 200 when every probe that counts is content, else 503. With ?verbose it names
// each.
func answerReady(w http.ResponseWriter, r *http.Request, probes []probe) {
	status := http.StatusOK
	var lines []byte
	for _, p := range probes {
		if err := p.check(); err != nil {
			if !p.told {
				status = http.StatusServiceUnavailable
			}
			lines = fmt.Appendf(lines, "[-] %s: %v\n", p.name, err)
			continue
		}
		lines = fmt.Appendf(lines, "[+] %s\n", p.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if r.URL.Query().Has("verbose") {
		w.Write(lines)
	}
	fmt.Fprintln(w, map[bool]string{true: "ready", false: "not ready"}[status == http.StatusOK])
}

// Run serves until ctx ends.
func (o *ops) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           o.handler,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	err := server.Serve(o.listener)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s on %s: %w", "health and metrics", o.listener.Addr(), err)
}

// readiness is what /readyz asks of a node's status; pools is ops.readyPools.
func readiness(status func() armor.NodeStatus, admit func() error, certificate func() error, pools string) []probe {
	now := status()
	probes := []probe{
		{name: "server certificate", check: certificate},
		{name: "trust state", check: admit},
		{name: "not draining", check: func() error {
			if now.Draining {
				return armor.ErrDraining
			}
			return nil
		}},
	}
	served := 0
	for _, p := range now.Pools {
		if p.NotReady == "" {
			served++
		}
		probes = append(probes, probe{name: "pool " + p.Pool, told: pools != config.AllPools, check: func() error { return unserved(p) }})
	}
	if pools == config.AnyPool && len(now.Pools) > 0 {
		probes = append(probes, probe{name: "some pool", check: func() error {
			if served == 0 {
				return fmt.Errorf("%w: none of %d pools can be served here", armor.ErrUnavailable, len(now.Pools))
			}
			return nil
		}})
	}
	return probes
}

// unserved is why nobody can be served of a pool here.
func unserved(p armor.PoolStatus) error {
	if p.NotReady == "" {
		return nil
	}
	return errors.New(p.NotReady)
}
