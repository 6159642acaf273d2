package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// workload drives clients against the cluster and records what they saw.
type workload struct {
	cluster *site.Cluster
	history *History
	seed    uint64
	dir     string // for issued certificates
	logf    func(string, ...any)
}

// ledger is one app that writes rows in transactions, each with a key of its own, and
// records how every COMMIT ended. It never retries a key: an unknown stays unknown.
func (w *workload) ledger(ctx context.Context, id int) error {
	app, err := w.cluster.Demo()
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(w.seed, uint64(id)))
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			site.CloseConn(ctx, conn)
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if conn == nil || conn.IsClosed() {
			node := w.cluster.Nodes[random.IntN(len(w.cluster.Nodes))]
			if conn, err = app.Connect(ctx, node); err != nil {
				conn = nil
				site.Sleep(ctx, 50*time.Millisecond)
				continue
			}
		}
		w.transfer(ctx, conn, fmt.Sprintf("w%d-%d", id, n))
	}
	return nil
}

// transfer commits one row. Until COMMIT has been sent a failure means the row cannot
// be there; afterwards only an answer says so.
func (w *workload) transfer(ctx context.Context, conn *pgconn.PgConn, key string) {
	begun := w.history.Now()
	record := func(o Outcome, state, detail string) {
		w.history.Add(Event{Kind: KindCommit, Subject: key, Start: begun, End: w.history.Now(), Outcome: o, SQLState: state, Detail: detail})
	}
	// What has begun is brought to its end even when the run is over.
	ctx = context.WithoutCancel(ctx)
	for _, sql := range []string{"BEGIN", fmt.Sprintf("INSERT INTO ledger VALUES ('%s')", key)} {
		if err := site.Exec(ctx, conn, sql); err != nil {
			_, state, detail := verdict(err)
			record(Fail, state, detail)
			site.CloseConn(ctx, conn)
			return
		}
	}
	deadline, cancel := context.WithTimeout(ctx, site.Patience)
	defer cancel()
	results, err := conn.Exec(deadline, "COMMIT").ReadAll()
	switch {
	case err != nil:
		_, state, detail := verdict(err)
		record(Unknown, state, detail)
		site.CloseConn(ctx, conn)
	case results[0].CommandTag.String() != "COMMIT":
		record(Fail, "", results[0].CommandTag.String())
	default:
		record(OK, "", "")
	}
}

// reach is one app with a valid certificate that tries the nodes in random order until
// one serves it, again and again.
func (w *workload) reach(ctx context.Context, id int) error {
	app, err := w.cluster.Demo()
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(w.seed, uint64(id)))
	subject := fmt.Sprintf("app%d", id)
	for ctx.Err() == nil {
		for _, i := range random.Perm(len(w.cluster.Nodes)) {
			n := w.cluster.Nodes[i]
			begun := w.history.Now()
			outcome, state, detail := verdict(app.Ping(context.WithoutCancel(ctx), n))
			w.history.Add(Event{Kind: KindReach, Subject: subject, Node: n.Name, Start: begun, End: w.history.Now(), Outcome: outcome,
				SQLState: state, Detail: detail})
			if outcome == OK {
				break
			}
		}
		site.Sleep(ctx, 100*time.Millisecond)
	}
	return nil
}

// revoke issues certificates, uses each on every node, revokes it while its sessions
// run, and goes on knocking.
func (w *workload) revoke(ctx context.Context, id int) error {
	random := rand.New(rand.NewPCG(w.seed, uint64(id)))
	for n := 0; ctx.Err() == nil; n++ {
		if err := w.life(context.WithoutCancel(ctx), random, fmt.Sprintf("v%d-%d", id, n)); err != nil {
			return err
		}
		site.Sleep(ctx, 200*time.Millisecond)
	}
	return nil
}

// life is one certificate's, from issue to after its revocation.
func (w *workload) life(ctx context.Context, random *rand.Rand, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir := filepath.Join(w.dir, name)
	app, err := w.cluster.Issue(ctx, dir)
	if err != nil {
		w.logf("issue %s: %v", name, err) // no quorum just now; the next one may fare better
		return nil
	}
	// The asking goes on well past the reply, or a late cut would not be seen.
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var sessions sync.WaitGroup
	for _, n := range w.cluster.Nodes {
		sessions.Go(func() { w.ask(asking, app, n, name) })
	}
	site.Sleep(ctx, 300*time.Millisecond+time.Duration(random.Int64N(int64(time.Second))))
	w.revokeFile(ctx, name, filepath.Join(dir, "client.crt"))
	w.knock(ctx, app, name)
	site.Sleep(ctx, 300*time.Millisecond)
	stop()
	sessions.Wait()
	return nil
}

// ask keeps one session on a node busy with small queries until it ends.
func (w *workload) ask(ctx context.Context, app site.Client, n *site.Node, subject string) {
	begun := w.history.Now()
	conn, err := app.Connect(ctx, n)
	w.connected(subject, n, begun, err)
	if err != nil {
		return
	}
	defer site.CloseConn(ctx, conn)
	for ctx.Err() == nil && !conn.IsClosed() {
		begun := w.history.Now()
		outcome, state, detail := verdict(site.Exec(ctx, conn, "SELECT 1"))
		w.history.Add(Event{Kind: KindQuery, Subject: subject, Node: n.Name, Start: begun, End: w.history.Now(), Outcome: outcome,
			SQLState: state, Detail: detail})
		site.Sleep(ctx, 5*time.Millisecond)
	}
}

// knock tries to open a session on every node.
func (w *workload) knock(ctx context.Context, app site.Client, subject string) {
	for _, n := range w.cluster.Nodes {
		begun := w.history.Now()
		w.connected(subject, n, begun, app.Ping(ctx, n))
	}
}

func (w *workload) connected(subject string, n *site.Node, begun time.Duration, err error) {
	outcome, state, detail := verdict(err)
	w.history.Add(Event{Kind: KindConnect, Subject: subject, Node: n.Name, Start: begun, End: w.history.Now(), Outcome: outcome,
		SQLState: state, Detail: detail})
}

// unavailable is armorctl's exit code for "no quorum, nothing changed".
const unavailable = 7

// revokeFile revokes a certificate and records when the cluster said it was enforced.
func (w *workload) revokeFile(ctx context.Context, subject, file string) {
	begun := w.history.Now()
	_, err := w.cluster.Armorctl(ctx, "revoke", "--file", file, "--reason", "superseded", "--yes", "-o", "json")
	e := Event{Kind: KindRevoke, Subject: subject, Start: begun, End: w.history.Now(), Outcome: OK}
	if err != nil {
		e.Outcome, e.Detail = Unknown, err.Error()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == unavailable {
			e.Outcome = Fail
		}
	}
	w.history.Add(e)
}

// verdict turns an error into what a history records of it.
func verdict(err error) (Outcome, string, string) {
	if err == nil {
		return OK, "", ""
	}
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) {
		return Fail, refusal.Code, refusal.Message
	}
	return Unknown, "", err.Error()
}
